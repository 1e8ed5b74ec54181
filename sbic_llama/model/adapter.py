"""An adapter on its 4-bit base: made, saved with proof that it loads, and loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from peft import LoraConfig, PeftModel, TaskType
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.cli.errors import UserError, shown
from common.models import quantization
from common.models.loading import (
    base_path,
    check_adapter,
    check_adapter_config,
    loading,
    local_folder,
    read_config,
    require,
    width_of,
)
from common.runtime import hardware
from sbic_llama.data.encoding import answer_ids, encode
from sbic_llama.data.features import Feature
from sbic_llama.data.groups import NONE
from sbic_llama.model import description as annotator_file
from sbic_llama.model.description import ANNOTATOR_FILE, AnnotatorFile
from sbic_llama.model.scoring import score_branches

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
CHECK = "reloaded"


def lora_config(*, rank: int, alpha: float, dropout: float, revision: str | None) -> LoraConfig:
    """LoRA on every linear layer but the output. ``revision`` is the base's: the adapter is loaded onto it again."""
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        revision=revision,
    )


def load_adapter(
    name: str | Path, revision: str | None = None, *, precision: hardware.Precision
) -> tuple[PeftModel, PreTrainedTokenizerBase, AnnotatorFile]:
    """A trained adapter on its base, with the base's tokenizer and the adapter's description.

    Args:
        name: Folder or Hub id.
        revision: Its branch, tag or commit.
        precision: See :func:`common.models.quantization.load_base`.

    Raises:
        UserError: No such adapter or base, no access to it, or an adapter that was not trained by this project.
    """
    folder = local_folder(name, revision)
    description = read_description(folder, name)
    base = base_path(description.base_model)
    model = quantization.load_base(base, description.base_revision, precision=precision)
    tokenizer = quantization.load_tokenizer(base, description.base_revision)
    return attach(model, folder, name).eval(), tokenizer, description


def precision_for(description: AnnotatorFile) -> hardware.Choice:
    """The precision in which an adapter answers on this device.

    Raises:
        UserError: No such base model, or no access to it.
    """
    return hardware.choose_precision(width=width_of(base_path(description.base_model), description.base_revision))


def attach(model: PreTrainedModel | PeftModel, folder: Path, name: str | Path, adapter: str = "default") -> PeftModel:
    """A model with the adapter in ``folder`` on it, beside those that it has; ``adapter`` is what it is called there.

    Raises:
        UserError: An adapter that can't be loaded; ``name`` is how the user called it.
    """
    weights = require(folder, WEIGHTS_FILE, name)
    with loading(name):
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter)
        else:
            model = PeftModel.from_pretrained(model, folder, adapter_name=adapter)
        check_adapter(model, weights, adapter)
    return model


def read_description(folder: Path, name: str | Path) -> AnnotatorFile:
    """What the adapter in ``folder`` says of itself, without loading it; ``name`` is how the user called it.

    Raises:
        UserError: It was not trained by this version of the project.
    """
    description = annotator_file.read(require(folder, ANNOTATOR_FILE, name))
    description.resolve_feature()
    require(folder, WEIGHTS_FILE, name)
    config = read_config(folder, CONFIG_FILE, name)
    check_adapter_config(config, "CAUSAL_LM", name)
    found = tuple(config.get(key) for key in ("base_model_name_or_path", "revision"))
    expected = (description.base_model, description.base_revision)
    if found != expected:
        raise UserError(
            f"an adapter of {shown(found)}",
            file=f"{name}/{CONFIG_FILE}",
            expected=f"{shown(expected)}, as {ANNOTATOR_FILE} says",
        )
    return description


def save(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    description: AnnotatorFile,
    folder: Path,
    *,
    feature: Feature,
    probe: Sequence[str],
) -> int:
    """Saves adapter, tokenizer and description, loads the adapter again and compares the scores of ``probe``, bit for bit.

    Returns:
        The bytes that a feature costs to store: the adapter and its configuration.

    Raises:
        RuntimeError: What was saved does not answer as what was trained.
    """
    model.peft_config["default"].base_model_name_or_path = description.base_model
    # PEFT would look the base up on the Hub, to see whether its embeddings have grown; LoRA leaves them alone.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT writes a card of its own, full of blanks
    size = sum(path.stat().st_size for path in folder.iterdir())
    tokenizer.save_pretrained(folder)
    description.write(folder)

    encoded = encode(tokenizer, feature, probe, max_post_tokens=description.max_post_tokens)
    branches = answer_ids(tokenizer, feature.labels or (NONE, "people"))

    def scores() -> np.ndarray:
        return score_branches(model, encoded, [branches] * len(probe), batch_size=16)

    trained = scores()
    # Onto the same base: a second copy of it would not fit beside the first on a small GPU.
    model.load_adapter(str(folder), CHECK)
    model.set_adapter(CHECK)
    loaded = scores()
    model.set_adapter("default")
    model.delete_adapter(CHECK)
    if not np.array_equal(trained, loaded):
        raise RuntimeError(f"{folder}: the saved adapter answers differently from the trained one")
    return size
