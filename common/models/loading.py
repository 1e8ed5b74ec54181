"""Find models by folder or Hub id, and check the files of strangers' models before they are loaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, counted, shown
from common.models.load_errors import loading, without_weights
from common.models.prompt import mark_added
from common.models.retry import with_retries
from common.runtime import files
from common.runtime.project import MINIATURE, MINIATURE_MODELS

# What is downloaded of a repository that anybody may have filled: no pickles, no code, no optimizer states.
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md", "evaluation/scores.csv")
UNWANTED = ("checkpoint-*", "onnx/*", "openvino/*")
INDEX = "model.safetensors.index.json"
MODEL_FILES = ("config.json", "generation_config.json", INDEX)
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
HASHED_WHOLE = 2 * 2**30  # bytes of a base's files: all of a 7B model would take a minute at each start
PIECES, PIECE = 128, 2**15  # of a larger one's files, and bytes of each
SHARD = r"[\w-][\w.-]*\.safetensors"
KERNEL_SETTINGS = ("attn_implementation", "experts_implementation", "kernel_config")
OWN_KERNELS = (
    None,
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flex_attention",
    "grouped_mm",
    "batched_mm",
)
# Attributes of transformers' configurations, which a file can overwrite: by other names or in parts, settings pass unseen.
MACHINERY = ("__dict__", "attribute_map", "sub_configs", "sub_configs_defaults", "configuration_files")


def base_path(name: str) -> str:
    """Return the folder or Hub id to load a base model from; the shipped models' names become their folders."""
    shipped = MINIATURE_MODELS / name.removeprefix(MINIATURE)
    return str(shipped) if name.startswith(MINIATURE) and (shipped / "config.json").is_file() else name


def lasting_path(name: str, output_dir: Path) -> str:
    """Return how to record a base model so that a model in ``output_dir`` finds it from any working directory.

    A relative path is kept where :func:`base_of` finds the same folder from the model's own place; otherwise it becomes absolute.
    """
    if base_path(name) != name or not (path := Path(name)).is_dir():
        return name  # a shipped model or a Hub id
    above = _above(output_dir, name)
    return name if path.is_absolute() or (above and above.samefile(path)) else str(path.resolve())


def base_of(folder: Path, name: str, revision: str | None, *, local: bool) -> str:
    """Return the name of the base of the model in ``folder`` such that it does not depend on the working directory.

    A relative path is looked up from the model's folder upwards. ``local`` says that a base without a revision is a folder: our
    trainings record the commit of a base from the Hub.
    """
    elsewhere = revision is not None or base_path(name) != name or hub_commit(folder) is not None
    if elsewhere or Path(name).is_absolute():
        return name
    if above := _above(folder, name):
        return str(above)
    if local and not Path(name).is_dir():
        expected = f"{name} in the folder of the model or one above"
        raise UserError(f"its base model {shown(name)} is not here", file=folder, expected=expected, fix="put it there")
    return name


def _above(folder: Path, name: str) -> Path | None:
    start = folder.resolve()
    return next((up / name for up in (start, *start.parents) if (up / name / "config.json").is_file()), None)


def local_folder(name: str | Path, revision: str | None = None, *, cache_dir: Path | None = None) -> Path:
    """Return a trained model's folder, after downloading it where ``name`` is a Hub id (``user/name@v1`` for a revision).

    ``output/run`` could also be a Hub id; where the folder ``output`` exists, it is taken for a path. Without a network,
    the cached copy is used. ``cache_dir`` replaces the user's own cache.
    """
    check_place(name, revision)
    name, revision = with_revision(name) if revision is None else (str(name), revision)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    def download() -> Path:
        patterns: dict[str, Any] = {"allow_patterns": WANTED, "ignore_patterns": UNWANTED}
        return Path(snapshot_download(name, revision=revision, cache_dir=cache_dir, **patterns))

    with loading(name, revision):
        return with_retries(download, name)


def with_revision(name: str | Path) -> tuple[str, str | None]:
    """Split ``user/name@v1`` into Hub id and revision. A path may contain an @, a Hub id may not."""
    plain, _, revision = (str(name), "", "") if Path(name).exists() else str(name).partition("@")
    return plain, revision or None


def check_place(name: str | Path, revision: str | None = None) -> None:
    """Refuse a path that does not exist, before seconds of imports. (Anything else is taken for a Hub id.)"""
    name, revision = with_revision(name) if revision is None else (str(name), revision)
    if Path(name).is_dir():
        if revision is not None:
            raise UserError("a folder has no revisions", file=name, expected="a Hub id with a revision")
    elif name.startswith((".", "/", "~")) or (Path(name).parent.is_dir() and "/" in name):
        raise UserError("no such folder", file=name, expected="a trained model")


def hub_commit(folder: Path) -> str | None:
    """Return the commit that a folder of the Hub's cache holds; None for any other folder."""
    cached = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if cached else None


def require(folder: Path, filename: str, name: str | Path) -> Path:
    """Return the path of a file that a trained model must have; ``name`` is what the user called the model."""
    path = folder / filename
    if path.is_file():
        return path
    if filename.endswith(".safetensors") and not any(folder.glob("*.safetensors")):
        raise without_weights(name, filename)
    raise UserError(f"missing {filename}", file=name, expected="a model trained by this project")


def read_config(folder: Path, filename: str, name: str | Path) -> dict[str, Any]:
    """Read a JSON file that a trained model must have."""
    return _strictly(require(folder, filename, name))


def _strictly(path: Path) -> dict[str, Any]:
    """Read a JSON object; what libraries' lax parsers alone can read is refused, since they might see other values."""
    try:
        values, reason = files.loads(path.read_bytes()), "not a JSON object"
    except (OSError, ValueError) as error:
        values, reason = None, str(error)
    if not isinstance(values, dict):
        raise UserError(
            f"damaged file: {reason}", file=path, expected="a JSON object", fix="download it or train again"
        )
    return values


def check_config(name: str, revision: str | None, filenames: Sequence[str] = MODEL_FILES) -> None:
    """Refuse a model with configurations that cannot be read strictly, or that lead to code or files from elsewhere.

    A kernel is compiled code, which would be fetched and run. A shard may be any file, or a pickle.
    """
    for filename in filenames:
        path = file_of(name, filename, revision, optional=filename != "config.json")
        values = _strictly(path) if path else {}
        for key, value in _settings(values):
            problem = None
            if key.endswith(KERNEL_SETTINGS) and value not in OWN_KERNELS:
                problem = f"asks for the kernel {shown(value)} ({shown(key)}), which is code from elsewhere"
            elif key in MACHINERY:
                problem = f"sets {shown(key)}, which changes how it is read"
            elif key == "transformers_weights" and value is not None and not re.fullmatch(SHARD, str(value)):
                problem = f"names the weights {shown(value)}"
            elif key == "quantization_config" and value and not _is_bitsandbytes(value):
                problem = "describes weights that are quantized in a way that this project does not load"
            if problem:
                raise UserError(
                    f"{filename} {problem}", file=name, expected="a model of plain safetensors, without code"
                )
        if filename == INDEX and path:
            shards = values.get("weight_map")
            names = shards.values() if isinstance(shards, dict) else [shards]
            if wrong := [each for each in names if not re.fullmatch(SHARD, str(each))]:
                problem = f"{filename} names the shard {shown(wrong[0])}"
                raise UserError(problem, file=name, expected="names of *.safetensors in the model's own folder")


def check_no_adapter(name: str, revision: str | None) -> None:
    """Refuse a base that is or holds an adapter: transformers would silently load that, too."""
    if file_of(name, "adapter_config.json", revision, optional=True):
        fix = "remove its adapter_config.json, or train on the base that is named there"
        raise UserError("it is an adapter, or holds one", file=name, expected="a base model", fix=fix)


def load_config(name: str, revision: str | None = None) -> Any:
    """Load a model's configuration, once its files are checked."""
    from transformers import AutoConfig

    check_config(name, revision)
    with loading(name, revision):
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load a model's tokenizer, once its files are checked; use it through :mod:`common.models.prompt`."""
    from transformers import AutoTokenizer

    check_config(name, revision, TOKENIZER_FILES)
    with loading(name, revision):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    check_vocabulary(tokenizer, name)
    mark_added(tokenizer)
    return tokenizer


def _is_bitsandbytes(settings: Any) -> bool:
    """Return whether a base is quantized as here; other methods import or fetch code. (Names are regular expressions.)"""
    if not isinstance(settings, dict) or settings.get("quant_method") != "bitsandbytes":
        return False
    return all(re.fullmatch(r"[\w.]+", str(name)) for name in settings.get("llm_int8_skip_modules") or ())


def _settings(values: Any) -> Iterator[tuple[str, Any]]:
    """Yield all keys of nested JSON objects and lists, with their values."""
    if isinstance(values, dict):
        yield from values.items()
    if isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _settings(value)


def check_loaded(model: Any, report: Mapping[str, Any], name: str | Path, *, new_head: bool = False) -> None:
    """Refuse weights that are not those of the whole model: transformers would draw the rest at random, and only warn.

    Args:
        model: The loaded model, of any task.
        report: What ``from_pretrained(…, output_loading_info=True)`` returned with it.
        name: What the user called it.
        new_head: Whether a head (and a pooler) may be missing or of other sizes, because training starts with a new one.
    """
    prefix, absent = f"{model.base_model_prefix}.", set(report["missing_keys"])
    base = getattr(model, model.base_model_prefix, model)
    parts = {child for child, _ in base.named_children()}
    parts |= set() if new_head else {child for child, _ in model.named_children()} - {model.base_model_prefix}
    pooler = {f"{prefix}{key}" for key in base.state_dict() if key.startswith("pooler.")}

    def is_new(key: str) -> bool:
        return new_head and (not key.startswith(prefix) or (key in pooler and pooler <= absent))

    def is_known(key: str) -> bool:
        return key.removeprefix(prefix).partition(".")[0] in parts

    for problem, keys in (
        ("missing", [key for key in absent if not is_new(key)]),
        ("of another shape", [key for key, *_ in report["mismatched_keys"] if not is_new(key)]),
        ("beyond its layers", [key for key in report["unexpected_keys"] if is_known(key)]),
    ):
        if keys:
            raise UserError(
                f"its weights do not match config.json: {counted(len(keys), 'tensor')} {problem} (first: {shown(min(keys))})",
                file=name,
                expected="every tensor of the model, and no layer more",
                fix="download it again, or use the config.json that belongs to the weights",
            )


def check_vocabulary(tokenizer: Any, name: str | Path) -> None:
    """Refuse a tokenizer with only special tokens, which transformers makes where a model's folder has no files for it."""
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        fix = "copy tokenizer.json and tokenizer_config.json of the model into it"
        raise UserError("no vocabulary for the tokenizer", file=name, expected="tokenizer files", fix=fix)


def file_of(name: str, filename: str, revision: str | None, *, optional: bool = False) -> Path | None:
    """Return a file of a base model, from its folder or the Hub; None where the model has no such file.

    An ``optional`` file that is not in the cache is missing where the Hub cannot be asked, as it is for transformers.
    """
    if Path(name).is_dir():
        path = Path(name) / filename
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def download() -> Path:
        return Path(hf_hub_download(name, filename, revision=revision))

    with loading(name, revision):
        try:
            return download() if optional else with_retries(download, name)
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError) and not optional:  # the Hub could not be asked
                raise
            return None


def commit_of(name: str, revision: str | None) -> str | None:
    """Return the commit that ``revision`` of a base model means today (default: the main branch); None for a folder."""
    if Path(name).is_dir():
        return None
    path = file_of(name, "config.json", revision)
    if path is None:
        raise UserError("missing config.json", file=name, expected="a model")
    return path.parent.name  # the cache keeps a commit's files in a folder of its name


def base_identity(name: str, revision: str | None) -> str:
    """Identify a base model by its commit on the Hub, or by a digest of a folder's configuration, tokenizer and weights."""
    path = base_path(name)
    if not Path(path).is_dir():
        return str(commit_of(path, revision))
    digest = hashlib.sha256()
    files = sorted(file for file in Path(path).iterdir() if file.suffix in (".json", ".txt", ".safetensors"))
    whole = sum(file.stat().st_size for file in files) <= HASHED_WHOLE
    for file in files:
        digest.update(file.name.encode() + b"\0" + _digest(file, whole=whole))
    return digest.hexdigest()


def _digest(file: Path, *, whole: bool) -> bytes:
    """Return a digest of a file; if not of the ``whole``, of its size and of pieces that are spread over it."""
    with file.open("rb") as stream:
        if whole:
            return hashlib.file_digest(stream, "sha256").digest()
        size = file.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        for start in range(0, size, max(PIECE, size // PIECES)):
            stream.seek(start)
            digest.update(stream.read(PIECE))
        return digest.digest()


def width_of(name: str, revision: str | None = None) -> int:
    """Return the hidden size of a base model, from its configuration."""
    return width_in(load_config(name, revision))


def width_in(config: Any) -> int:
    """Return the hidden size in a model's configuration; 0 where there is none."""
    return int(getattr(config.get_text_config(), "hidden_size", 0))


def license_of(name: str, commit: str | None) -> str | None:
    """Return the license on a base model's card, as the Hub abbreviates it (``llama2``); None where there is none."""
    from huggingface_hub import ModelCard

    card = file_of(name, "README.md", commit)
    if card is None:
        return None
    try:
        return ModelCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.license
    except (OSError, ValueError):
        return None
