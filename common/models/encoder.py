"""The encoder with a classification head, as a whole or with a LoRA adapter: load, save, predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.cli.console import bar, log
from common.cli.errors import UserError, shown
from common.cli.options import ALL_LINEAR, DEFAULT_LENGTH, EncoderOptions
from common.models import loading as models
from common.models.adapters import (
    ADAPTER_CONFIG,
    check_adapter,
    check_adapter_config,
    check_targets,
    copy_weights,
)
from common.models.encoding import Texts, check_tokens, encode, fit_tokenizer, longest
from common.models.load_errors import loading
from common.models.loading import (
    base_of,
    base_path,
    check_loaded,
    check_no_adapter,
    load_config,
    local_folder,
    read_config,
    require,
)
from common.runtime import hardware
from common.runtime.run_folder import TRAINING_FILE

if TYPE_CHECKING:
    from peft import PeftModel

PROBES = (  # to compare a padded batch with each alone
    ("A man is asleep.", "A man sleeps."),
    ("Two children and an old dog are playing with a red ball near the river.", "Nobody is outside."),
)
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def head_facts(labels: Sequence[str]) -> dict[str, Any]:
    """Return the keys of a model's configuration that describe a head for these classes."""
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification",  # a base may have been trained on scores
    }


def load_base(name: str, revision: str | None = None, *, labels: Sequence[str]) -> tuple[PreTrainedModel, list[str]]:
    """Load a pretrained encoder with a new head for the classes ``labels``, in fp32.

    Returns:
        The model, and the names of its new modules (the head, and a pooler if the checkpoint lacks one): a LoRA adapter
        must store them whole, or they would be lost.
    """
    model, report, own = _load_any(name, revision, labels)
    prefix, missing = model.base_model_prefix, set(report["missing_keys"])
    head = {name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())}
    if not any({f"{child}.{key}" for key in model.get_submodule(child).state_dict()} <= missing for child in head):
        log(f"{name} has a head of its own ({', '.join(own)}): a new one replaces it")
        _draw(model, head)
    return model, sorted(head | {key.split(".")[1] for key in missing if key.startswith(f"{prefix}.")})


def _load_any(
    name: str, revision: str | None, labels: Sequence[str]
) -> tuple[PreTrainedModel, dict[str, Any], tuple[str, ...]]:
    """Load an encoder, with its own head if it has a fitting one; also return the report, and its own labels."""
    check_no_adapter(name, revision)
    model, report, own = _from_pretrained(name, revision, head_facts(labels), name)
    check_loaded(model, report, name, new_head=True)
    # These models accept any keyword but ignore the number of items in a batch. Without this, Trainer would multiply loss
    # and gradients by the accumulation steps and the number of processes.
    model.accepts_loss_kwargs = False
    return model, report, own


def _from_pretrained(
    place: str | Path, revision: str | None, facts: dict[str, Any], name: str | Path
) -> tuple[PreTrainedModel, dict[str, Any], tuple[str, ...]]:
    """Load a classifier with the best attention that its architecture has; also return the report, and its own labels.

    ``name`` is what the user called the model in ``place``.
    """
    with loading(name):
        config = load_config(str(place), revision)
        own = _label_names(config)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            place,
            revision=revision,
            dtype=torch.float32,
            attn_implementation=attention(config, name),
            output_loading_info=True,
            use_safetensors=True,  # pickles run code
            trust_remote_code=False,  # by default a terminal asks whether to run the repository's code
            ignore_mismatched_sizes=True,  # in a head; check_loaded refuses it elsewhere
            **facts,
        )
    for parameter in model.parameters():  # for one layout of trained and reloaded weights, see `copy_weights`
        parameter.data = parameter.data.clone()
    return model, report, own


def attention(config: Any, name: str | Path) -> str:
    """Return the attention to load a classifier with; some architectures, such as DeBERTa, have only the plain one."""
    try:
        kind = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    except KeyError:
        problem = f"transformers has no classifier of type {shown(config.model_type)}"
        raise UserError(problem, file=name, expected="an encoder, such as roberta-base") from None
    return hardware.ATTENTION if kind._supports_sdpa else "eager"


def _draw(model: PreTrainedModel, head: set[str]) -> None:
    """Draw a head at random, as transformers does where a checkpoint lacks it: it skips what is marked as initialized."""
    model._is_hf_initialized = False
    for child in head:
        for module in model.get_submodule(child).modules():
            module._is_hf_initialized = False
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                tensor._is_hf_initialized = False
    model.initialize_weights()


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    tokenizer = models.load_tokenizer(name, revision)
    if tokenizer.pad_token_id is None:
        raise UserError("the tokenizer has no pad token", file=name, expected="an encoder, such as roberta-base")
    return tokenizer


def fit(model: Any, tokenizer: PreTrainedTokenizerBase, name: str | Path) -> None:
    """Make model and tokenizer agree on their inputs, and refuse a model that does not answer a batch as each item alone."""
    fit_tokenizer(tokenizer, model, str(name))
    length = min(longest(model) or DEFAULT_LENGTH, DEFAULT_LENGTH)
    try:
        together, alone = (
            predict_logits(model, tokenizer, PROBES, max_length=length, batch_size=size) for size in (len(PROBES), 1)
        )
    except UserError as error:
        error.file = error.file or str(name)
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"it can't classify texts: {reason}", file=name) from error
    if np.abs(together - alone).max() > 1e-2 * np.abs(alone).max():
        raise UserError(
            "its answers change with the padding of a batch", file=name, expected="a model that ignores padding"
        )


def linear_modules(model: PreTrainedModel, excluded: Sequence[str], wanted: Sequence[str] = ALL_LINEAR) -> str:
    """Return a regular expression for the full names of the encoder's linear layers, without modules in ``excluded``.

    Last parts of names are not enough: a layer of the head is named ``dense`` too. ``wanted`` selects layers by their
    last part, such as ``query``.
    """
    prefix = model.base_model_prefix
    names, parents = set(), set()
    for name, module in model.named_modules():
        parts = name.split(".")
        if isinstance(module, torch.nn.Linear) and parts[0] == prefix and parts[1] not in excluded:
            parents.add(parts[1])
            names.add(parts[-1])
    if not names:
        raise UserError("the model has no linear layers to adapt", expected="an encoder, such as roberta-base")
    if tuple(wanted) != ALL_LINEAR:
        check_targets(wanted, names, "the encoder")
        names = set(wanted)
    return rf"{prefix}\.({'|'.join(sorted(parents))})\..*\b({'|'.join(sorted(names))})"


def add_lora(
    model: PreTrainedModel, new_modules: list[str], settings: EncoderOptions, revision: str | None = None
) -> PeftModel:
    """Add LoRA to the encoder as a recipe describes it; new modules are trained and saved whole.

    The adapter stores ``revision`` of the base, so that it is loaded onto the same weights again.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        use_dora=settings.use_dora,
        init_lora_weights=True if settings.init_lora_weights == "default" else settings.init_lora_weights,
        target_modules=linear_modules(model, new_modules, settings.target_modules),
        modules_to_save=new_modules,
        revision=revision,
    )
    return get_peft_model(model, config)


def load_trained(
    name: str | Path, revision: str | None = None, *, labels: tuple[str, ...]
) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Load a trained classifier of ``labels``, or an adapter, from a folder or the Hub onto this device, with its tokenizer.

    Raises:
        UserError: No such model, no access to it, or a model of other labels.
    """
    folder = local_folder(name, revision)
    is_adapter = (folder / ADAPTER_CONFIG).is_file()
    config = read_config(folder, ADAPTER_CONFIG, name) if is_adapter else {}
    if is_adapter:
        check_adapter_config(config, "SEQ_CLS", name)
    elif not any(folder.glob("*.safetensors")):
        require(folder, "config.json", name)
        require(folder, "model.safetensors", name)
    with loading(name):
        # An adapter alone does not name its classes; ours have a config.json that does.
        own = None
        if (folder / "config.json").is_file():
            own = _label_names(load_config(str(folder)))
        if own is not None and own != labels:
            raise UserError(f"the model has the labels {', '.join(own)}", file=name, expected=", ".join(labels))
        if is_adapter:
            if own is None:
                log(f"{name} does not name its labels; assuming {', '.join(labels)}")
            model = _load_adapter(folder, config, name, labels)
        else:
            require(folder, "config.json", name)
            model, report, _ = _from_pretrained(folder, None, {}, name)
            check_loaded(model, report, name)
        tokenizer = load_tokenizer(str(folder))
        fit(model, tokenizer, name)
    return model.to(hardware.device_type()).eval(), tokenizer


def _load_adapter(folder: Path, config: dict[str, Any], name: str | Path, labels: Sequence[str]) -> PeftModel:
    from peft import PeftModel, get_peft_model_state_dict

    weights = require(folder, ADAPTER_WEIGHTS, name)
    revision, local = config.get("revision"), (folder / TRAINING_FILE).is_file()
    place = base_path(base_of(folder, config["base_model_name_or_path"], revision, local=local))
    base, report, _ = _load_any(place, revision, labels)
    # Without it, a rank that the file does not have would fill the memory. Two initializations change the base's weights first.
    of_file_alone = config.get("init_lora_weights") not in ("olora", "pissa")
    # Where the base is: PEFT would choose a GPU, and leave the head there.
    model = PeftModel.from_pretrained(base, folder, low_cpu_mem_usage=of_file_alone, torch_device="cpu")
    check_adapter(model, weights)
    copy_weights(model, weights)
    drawn = {*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}
    stored = get_peft_model_state_dict(model, save_embedding_layers=False)
    if absent := [key for key in drawn if f"base_model.model.{key}" not in stored]:
        problem = f"neither the adapter nor its base has {shown(min(absent))}"
        raise UserError(problem, file=name, expected="an adapter that was saved with its head")
    return model


def _label_names(config: Any) -> tuple[str, ...]:
    return tuple(str(config.id2label[i]) for i in range(config.num_labels))


def predict_logits(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Texts],
    *,
    max_length: int = DEFAULT_LENGTH,
    batch_size: int = 64,
    progress: bool = False,
    answered: Callable[[int], Any] | None = None,
) -> np.ndarray:
    """Return logits of shape (n, classes) in the order of the items; batches hold similar lengths to save padding.

    ``progress`` shows a bar; ``answered`` is told the size of each batch that is done.
    """
    encoded, _ = encode(tokenizer, items, max_length, progress=progress)
    check_tokens(model, encoded)
    order = sorted(range(len(items)), key=encoded.lengths.__getitem__)
    logits = np.zeros((len(items), model.config.num_labels), dtype=np.float32)
    unit = "pair" if items and len(items[0]) == 2 else "text"
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode(), bar(len(items), unit, show=progress) as done:
        for start in reversed(range(0, len(order), batch_size)):  # each batch fits where a longer one was
            chosen = order[start : start + batch_size]
            batch = tokenizer.pad([encoded[i] for i in chosen], return_tensors="pt").to(device)
            logits[chosen] = model(**batch).logits.float().cpu().numpy()
            done.update(len(chosen))
            if answered is not None:
                answered(len(chosen))
    return logits


def save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, *, base: str, probe: Sequence[Texts]) -> int:
    """Save model (or adapter) and tokenizer, load them again, and compare the logits of ``probe`` bit for bit.

    ``base`` is the base model's name as the user gave it; the adapter is loaded onto it, on any machine.

    Returns:
        Bytes to store for this task: weights and their configuration, without the tokenizer.
    """
    if hasattr(model, "peft_config"):
        model.peft_config["default"].base_model_name_or_path = base
        # Otherwise PEFT looks up the base on the Hub to check its embeddings, which LoRA does not touch.
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)
    model.config.save_pretrained(folder)  # for an adapter too: it names the labels
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card, full of blanks
    size = sum(path.stat().st_size for path in folder.iterdir())
    tokenizer.save_pretrained(folder)
    loaded, loaded_tokenizer = load_trained(folder, labels=_label_names(model.config))
    if not np.array_equal(predict_logits(model, tokenizer, probe), predict_logits(loaded, loaded_tokenizer, probe)):
        raise RuntimeError(f"{folder}: the saved model gives other answers than the trained one")
    return size
