"""Create an adapter on its 4-bit base, save it with proof that it reloads, and load it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from peft import LoraConfig, PeftModel, TaskType
from torch.nn import Linear
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.cli.errors import UserError, shown
from common.cli.options import ALL_LINEAR
from common.models.adapters import check_adapter, check_adapter_config, check_targets, copy_weights
from common.models.load_errors import loading
from common.models.loading import base_of, base_path, local_folder, read_config, require, width_of
from common.models.prompt import answer_ids
from common.models.quantization import load_tokenizer
from common.runtime import hardware
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import Feature
from sbic_llama.data.groups import NONE
from sbic_llama.model import description as annotator_file
from sbic_llama.model.description import ANNOTATOR_FILE, AnnotatorFile
from sbic_llama.model.exactness import load_base
from sbic_llama.model.scoring import device_of, score_branches
from sbic_llama.training.arguments import TrainArguments

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
CHECK = "reloaded"
EXPERTS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")  # PEFT's names for what are no layers


def lora_config(arguments: TrainArguments, base: PreTrainedModel, revision: str | None) -> LoraConfig:
    """Configure a run's LoRA on a base of this revision."""
    modules, output = arguments.target_modules, base.get_output_embeddings()
    # Posts are text: of Gemma 3, images would pass through other layers. Llama 4's routers of experts return a tuple.
    text = {*base.get_decoder().modules()}
    layers = {name: layer for name, layer in base.named_modules() if isinstance(layer, Linear) and layer is not output}
    excluded = [name for name, layer in layers.items() if name.endswith("router") or layer not in text]
    if modules != ALL_LINEAR:
        experts = EXPERTS if any(name.endswith("experts") for name, _ in base.named_modules()) else ()
        check_targets(modules, {*layers, *experts} - {*excluded}, "the base")
    return LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=arguments.r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        # PEFT excludes the output layer from "all-linear".
        target_modules="all-linear" if modules == ALL_LINEAR else list(modules),
        exclude_modules=excluded or None,
        revision=revision,  # loading puts the adapter on the base at this revision
    )


def load_adapter(
    name: str | Path, revision: str | None = None, *, precision: hardware.Precision
) -> tuple[PeftModel, PreTrainedTokenizerBase, AnnotatorFile]:
    """Load a trained adapter on its base, with the base's tokenizer and the adapter's description."""
    folder = local_folder(name, revision)
    description = read_description(folder, name)
    base = base_path(description.base_model)
    tokenizer = load_tokenizer(base, description.base_revision)
    model = load_base(base, description.base_revision, tokenizer, precision=precision)
    return attach(model, folder, name).eval(), tokenizer, description


def precision_for(description: AnnotatorFile) -> hardware.Choice:
    """Return the precision for inference with an adapter on this device."""
    return hardware.choose_precision(width=width_of(base_path(description.base_model), description.base_revision))


def attach(model: PreTrainedModel | PeftModel, folder: Path, name: str | Path, adapter: str = "default") -> PeftModel:
    """Add the adapter in ``folder`` to a model, named ``adapter`` there; ``name`` is what the user called it."""
    weights = require(folder, WEIGHTS_FILE, name)
    # On the base's device: each process of a launch would choose the first GPU.
    settings: dict[str, Any] = {"low_cpu_mem_usage": True, "torch_device": str(device_of(model))}
    with loading(name):
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter, **settings)
        else:
            model = PeftModel.from_pretrained(model, folder, adapter_name=adapter, **settings)
        check_adapter(model, weights, adapter)
        copy_weights(model, weights, adapter)
    return model


def read_description(folder: Path, name: str | Path) -> AnnotatorFile:
    """Read an adapter's description without loading it; ``name`` is what the user called it.

    A base model with a relative path is named such that any working directory will do.
    """
    description = annotator_file.read(require(folder, ANNOTATOR_FILE, name))
    description.resolve_feature()
    require(folder, WEIGHTS_FILE, name)
    config = read_config(folder, CONFIG_FILE, name)
    check_adapter_config(config, "CAUSAL_LM", name)
    base = (config.get("base_model_name_or_path"), config.get("revision"))
    expected = (description.base_model, description.base_revision)
    if base != expected:
        raise UserError(
            f"the adapter is for the base model {shown(base)}",
            file=f"{name}/{CONFIG_FILE}",
            expected=f"{shown(expected)} as in {ANNOTATOR_FILE}",
        )
    place = base_of(folder, description.base_model, description.base_revision, local=True)
    return replace(description, base_model=place)


def save(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    description: AnnotatorFile,
    folder: Path,
    *,
    feature: Feature,
    probe: Sequence[str],
) -> int:
    """Save adapter, tokenizer and description, and check that the reloaded adapter scores ``probe`` bit for bit the same.

    Returns:
        Storage of a feature in bytes: the adapter and its configuration.

    Raises:
        RuntimeError: The saved adapter gives other scores than the trained one.
    """
    model.peft_config["default"].base_model_name_or_path = description.base_model
    # PEFT would look up on the Hub whether the base's embeddings have grown; LoRA leaves them alone.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's own card, mostly blank
    size = sum(path.stat().st_size for path in folder.iterdir())
    tokenizer.save_pretrained(folder)
    description.write(folder)

    encoded = encode(tokenizer, feature, probe, max_post_tokens=description.max_post_tokens)
    branches = answer_ids(tokenizer, feature.branches or (NONE, "people"), feature.template)

    def scores() -> np.ndarray:
        return score_branches(model, encoded, [branches] * len(probe), batch_size=16)

    trained = scores()
    # On the same base: a second copy would not fit a small GPU.
    attach(model, folder, folder, CHECK)
    model.set_adapter(CHECK)
    reloaded = scores()
    model.set_adapter("default")
    model.delete_adapter(CHECK)
    if not np.array_equal(trained, reloaded):
        raise RuntimeError(f"{folder}: the saved adapter answers differently from the trained one")
    return size
