"""The classifier: a pre-trained encoder with a new head, whole or behind a LoRA adapter; loaded, saved, and scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from common.cli.console import bar, log
from common.cli.errors import UserError, shown
from common.models.loading import (
    base_path,
    check_adapter,
    check_adapter_config,
    check_config,
    loading,
    local_folder,
    read_config,
    require,
)
from common.runtime import hardware
from snli_roberta.data.corpus import LABELS, Pair
from snli_roberta.training.arguments import ALL_LINEAR, TrainArguments

if TYPE_CHECKING:
    from peft import PeftModel

HEAD_FACTS = {
    "num_labels": len(LABELS),
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: i for i, label in enumerate(LABELS)},
}
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def load_base(name: str, revision: str | None = None) -> tuple[PreTrainedModel, list[str]]:
    """A pre-trained encoder with a classification head, in fp32.

    Returns:
        The model, and the names of the modules that are new (the head, and a pooler that the checkpoint lacks): a LoRA
        adapter must hold them whole, or they would be lost.

    Raises:
        UserError: No such model, or no access to it.
    """
    check_config(name, revision)
    with loading(name):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            name,
            revision=revision,
            dtype=torch.float32,
            attn_implementation=hardware.ATTENTION,
            output_loading_info=True,
            use_safetensors=True,  # pickles run code
            trust_remote_code=False,  # or a terminal is asked whether to run a repository's own
            ignore_mismatched_sizes=True,  # a head of other classes is replaced by a new one
            **HEAD_FACTS,
        )
    # Without this Trainer multiplies loss and gradients by the accumulation steps and the processes: these models take any
    # keyword but ignore the one that says how many items a batch has.
    model.accepts_loss_kwargs = False
    prefix = model.base_model_prefix
    new = {name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())}
    new |= {key.split(".")[1] for key in info["missing_keys"] if key.startswith(f"{prefix}.")}
    return model, sorted(new)


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A model's tokenizer.

    Raises:
        UserError: No such model, no access to it, or a tokenizer that can't pad.
    """
    with loading(name):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        raise UserError("its tokenizer has no pad token", file=name, expected="an encoder, as roberta-base")
    return tokenizer


def linear_modules(model: PreTrainedModel, excluded: Sequence[str], wanted: Sequence[str] = ALL_LINEAR) -> str:
    """A regular expression that matches linear layers of the encoder by their full names, and none of ``excluded``.

    Names alone would not do: an encoder's ``dense`` is also the name of a layer in the head.

    Args:
        model: The encoder with its head.
        excluded: Modules that are trained whole.
        wanted: Last parts of the layers' names, as ``query``; ``all-linear`` for every one.

    Raises:
        UserError: The encoder has no such layer.
    """
    prefix = model.base_model_prefix
    names = set()
    parents = set()
    for name, module in model.named_modules():
        parts = name.split(".")
        if isinstance(module, torch.nn.Linear) and parts[0] == prefix and parts[1] not in excluded:
            parents.add(parts[1])
            names.add(parts[-1])
    if not names:
        raise UserError("the model has no linear layers that LoRA could adapt", expected="an encoder, as roberta-base")
    if tuple(wanted) != ALL_LINEAR:
        for name in wanted:
            if name not in names:
                raise UserError(
                    f"no linear layer of the encoder is named {shown(name)}",
                    key="target_modules",
                    expected=", ".join(sorted(names)),
                    fix="or say all-linear, alone",
                )
        names = set(wanted)
    return rf"{prefix}\.({'|'.join(sorted(parents))})\..*\b({'|'.join(sorted(names))})"


def add_lora(
    model: PreTrainedModel,
    new_modules: list[str],
    arguments: TrainArguments,
    revision: str | None = None,
) -> PeftModel:
    """LoRA on linear layers of the encoder, as a recipe has it; the new modules are trained and saved whole.

    ``revision`` is the base's: it is kept with the adapter, which is loaded onto that revision again.

    Raises:
        UserError: The encoder has no layer of a name that the recipe gives.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=arguments.r,
        lora_alpha=arguments.lora_alpha,
        lora_dropout=arguments.lora_dropout,
        use_rslora=arguments.use_rslora,
        use_dora=arguments.use_dora,
        init_lora_weights=True if arguments.init_lora_weights == "default" else arguments.init_lora_weights,
        target_modules=linear_modules(model, new_modules, arguments.target_modules),
        modules_to_save=new_modules,
        revision=revision,
    )
    return get_peft_model(model, config)


def load_trained(name: str | Path, revision: str | None = None) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """A trained classifier, whole or as an adapter on its base, from a folder or the Hub, on this device, with its tokenizer.

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
        # An adapter by itself does not say what its classes are; ours carry a config.json that does.
        labels = _labels(folder) if (folder / "config.json").is_file() else None
        if labels is not None and labels != LABELS:
            raise UserError(f"a model of the labels {', '.join(labels)}", file=name, expected=", ".join(LABELS))
        if is_adapter:
            if labels is None:
                log(f"{name} names no labels; they are taken to be {', '.join(LABELS)}")
            model = _load_adapter(folder, config, name)
        else:
            require(folder, "config.json", name)
            check_config(str(folder), None)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        tokenizer = load_tokenizer(str(folder))
    return model.to(hardware.device_type()).eval(), tokenizer


def _load_adapter(folder: Path, config: dict[str, Any], name: str | Path) -> PeftModel:
    from peft import PeftModel

    weights = require(folder, ADAPTER_WEIGHTS, name)
    base, _ = load_base(base_path(config["base_model_name_or_path"]), config.get("revision"))
    model = PeftModel.from_pretrained(base, folder)
    check_adapter(model, weights)
    return model


def _labels(folder: Path) -> tuple[str, ...]:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return tuple(str(config.id2label[i]) for i in range(config.num_labels))


def encode(tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Pair], max_length: int) -> tuple[list[list[int]], int]:
    """Token ids of each pair, and how many pairs had to be cut (the longer sentence first) to ``max_length`` tokens."""
    if not pairs:
        return [], 0
    full = tokenizer([p.premise for p in pairs], [p.hypothesis for p in pairs]).input_ids
    long = [i for i, ids in enumerate(full) if len(ids) > max_length]
    for i in long:
        full[i] = tokenizer(
            pairs[i].premise, pairs[i].hypothesis, truncation="longest_first", max_length=max_length
        ).input_ids
    return full, len(long)


def predict_logits(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    *,
    max_length: int = 128,
    batch_size: int = 64,
    progress: bool = False,
) -> np.ndarray:
    """Logits of shape (n, 3) in the pairs' order; pairs of like length share a batch, so little is padded."""
    encoded, _ = encode(tokenizer, pairs, max_length)
    order = sorted(range(len(pairs)), key=lambda i: len(encoded[i]))
    logits = np.zeros((len(pairs), len(LABELS)), dtype=np.float32)
    model.eval()
    device = next(model.parameters()).device
    with torch.inference_mode(), bar(len(pairs), "pair", show=progress) as done:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = tokenizer.pad({"input_ids": [encoded[i] for i in chosen]}, return_tensors="pt").to(device)
            logits[chosen] = model(**batch).logits.float().cpu().numpy()
            done.update(len(chosen))
    return logits


def save(model: Any, tokenizer: PreTrainedTokenizerBase, folder: Path, *, base: str, probe: Sequence[Pair]) -> int:
    """Saves model (or adapter) and tokenizer, loads them again and compares the logits of ``probe``, bit for bit.

    ``base`` is the base model as it was named: an adapter is loaded onto it, on any machine.

    Returns:
        The bytes that a task costs to store: weights and their configuration, without the tokenizer.

    Raises:
        RuntimeError: What was saved does not answer as what was trained.
    """
    if hasattr(model, "peft_config"):
        model.peft_config["default"].base_model_name_or_path = base
        # PEFT would look the base up on the Hub, to see whether its embeddings have grown; LoRA leaves them alone.
        model.save_pretrained(folder, save_embedding_layers=False)
    else:
        model.save_pretrained(folder)
    model.config.save_pretrained(folder)  # an adapter's too: it names the labels
    # PEFT writes a card of its own, full of blanks.
    (folder / "README.md").unlink(missing_ok=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    tokenizer.save_pretrained(folder)
    loaded, loaded_tokenizer = load_trained(folder)
    if not np.array_equal(predict_logits(model, tokenizer, probe), predict_logits(loaded, loaded_tokenizer, probe)):
        raise RuntimeError(f"{folder}: the saved model answers differently from the trained one")
    return size
