"""The encoder with a classification head, as a whole or with a LoRA adapter: load, save, predict."""

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
from snli_roberta.training.arguments import ADAPTER_CONFIG, ALL_LINEAR, SharedSettings

if TYPE_CHECKING:
    from peft import PeftModel

HEAD_FACTS = {
    "num_labels": len(LABELS),
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: i for i, label in enumerate(LABELS)},
}
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def load_base(name: str, revision: str | None = None) -> tuple[PreTrainedModel, list[str]]:
    """Load a pretrained encoder with a classification head, in fp32.

    Returns:
        The model, and the names of its new modules (the head, and a pooler if the checkpoint lacks one): a LoRA adapter
        must store them whole, or they would be lost.
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
            trust_remote_code=False,  # by default a terminal asks whether to run the repository's code
            ignore_mismatched_sizes=True,  # a head for other classes is replaced by a new one
            **HEAD_FACTS,
        )
    # These models accept any keyword but ignore the number of items in a batch. Without this, Trainer would multiply loss
    # and gradients by the accumulation steps and the number of processes.
    model.accepts_loss_kwargs = False
    prefix = model.base_model_prefix
    new = {name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())}
    new |= {key.split(".")[1] for key in info["missing_keys"] if key.startswith(f"{prefix}.")}
    return model, sorted(new)


def load_tokenizer(name: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    with loading(name):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    if tokenizer.pad_token_id is None:
        raise UserError("the tokenizer has no pad token", file=name, expected="an encoder, such as roberta-base")
    return tokenizer


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
        if unknown := [name for name in wanted if name not in names]:
            problem = f"no linear layer of the encoder is named {shown(unknown[0])}"
            expected = f"{', '.join(sorted(names))}, or only all-linear"
            raise UserError(problem, key="target_modules", expected=expected)
        names = set(wanted)
    return rf"{prefix}\.({'|'.join(sorted(parents))})\..*\b({'|'.join(sorted(names))})"


def add_lora(
    model: PreTrainedModel, new_modules: list[str], settings: SharedSettings, revision: str | None = None
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


def load_trained(name: str | Path, revision: str | None = None) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Load a trained classifier or adapter from a folder or the Hub onto this device, with its tokenizer.

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
        labels = _labels(folder) if (folder / "config.json").is_file() else None
        if labels is not None and labels != LABELS:
            raise UserError(f"the model has the labels {', '.join(labels)}", file=name, expected=", ".join(LABELS))
        if is_adapter:
            if labels is None:
                log(f"{name} does not name its labels; assuming {', '.join(LABELS)}")
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
    """Return the token IDs of each pair, and how many pairs were truncated (longest sentence first) to ``max_length``."""
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
    """Return logits of shape (n, 3) in the order of the pairs; batches hold pairs of similar length to save padding."""
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
    loaded, loaded_tokenizer = load_trained(folder)
    if not np.array_equal(predict_logits(model, tokenizer, probe), predict_logits(loaded, loaded_tokenizer, probe)):
        raise RuntimeError(f"{folder}: the saved model gives other answers than the trained one")
    return size
