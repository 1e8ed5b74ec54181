"""Check adapters, which anybody may have made, before PEFT reads their configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from common.cli.errors import UserError, shown
from common.cli.options import HIGHEST_ALPHA, HIGHEST_RANK

ADAPTER_CONFIG = "adapter_config.json"  # a folder with it holds an adapter
NAME = r"[\w-]+(\.[\w-]+)*"  # of a module; PEFT puts some into regular expressions
PATTERN = rf"(\.\*\\\.)?{NAME}"  # a module, or all of a name, as PEFT writes it for experts
# What an encoder's training adapts: linear layers of an encoder's parts, by the last part of their names.
LAYERS = r"\w+\\\.\([\w|]+\)\\\.\.\*\\b\([\w|]+\)"
MOST = 2000  # names in a list, and characters of one


def _is_text(value: Any, pattern: str) -> bool:
    return isinstance(value, str) and len(value) <= MOST and re.fullmatch(pattern, value) is not None


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST and all(_is_text(name, NAME) for name in value)


def _is_number(value: Any, most: float) -> bool:
    return type(value) in (int, float) and 0 <= value <= most


def _is_rank(value: Any) -> bool:
    return type(value) is int and 0 < value <= HIGHEST_RANK


def _by_name(value: Any, is_setting: Callable[[Any], bool]) -> bool:
    names = isinstance(value, dict) and len(value) <= MOST and value
    return bool(names) and all(_is_text(name, PATTERN) and is_setting(value[name]) for name in names)


# Any other key must be empty: it asks for what this project does not train.
KEYS: dict[str, Callable[[Any], bool]] = {
    "r": _is_rank,
    "lora_alpha": lambda value: _is_number(value, HIGHEST_ALPHA),
    "lora_dropout": lambda value: _is_number(value, 1),
    "target_modules": lambda value: _are_names(value) or value == "all-linear" or _is_text(value, LAYERS),
    "target_parameters": _are_names,
    "exclude_modules": _are_names,
    "modules_to_save": lambda value: _are_names(value) and len(set(value)) <= 8,  # each is copied
    "rank_pattern": lambda value: _by_name(value, _is_rank),
    "alpha_pattern": lambda value: _by_name(value, KEYS["lora_alpha"]),
    "init_lora_weights": lambda value: value in (True, "gaussian", "orthogonal", "olora", "pissa"),
    "bias": lambda value: value in ("none", "all", "lora_only"),
    "megatron_core": lambda value: value == "megatron.core",  # PEFT's default, which has no effect
    "qalora_group_size": _is_rank,
    **dict.fromkeys(("fan_in_fan_out", "inference_mode", "use_rslora", "use_dora"), lambda value: value is True),
    **dict.fromkeys(("base_model_name_or_path", "peft_version", "revision"), lambda value: isinstance(value, str)),
    "peft_type": lambda value: value == "LORA",
}


def check_adapter_config(config: dict[str, Any], task: str, name: str | Path) -> None:
    """Refuse an adapter's configuration that is not a plain LoRA for ``task``.

    It could name code to import, a regular expression that never ends, or layers that no memory holds.
    """
    if config.get("task_type") != task:
        raise UserError(f"an adapter for {shown(config.get('task_type'))}", file=name, expected=f"one for {task}")
    if config.get("peft_type") != "LORA":
        raise UserError(f"an adapter of type {shown(config.get('peft_type'))}", file=name, expected="a LoRA adapter")
    if not config.get("base_model_name_or_path"):
        raise UserError("adapter_config.json names no base model", file=name, expected="a folder or a Hub id")
    for key, value in config.items():
        if value and key != "task_type" and not (key in KEYS and KEYS[key](value)):
            expected = f"a plain LoRA for named modules, with a rank of at most {HIGHEST_RANK:,}"
            problem = f"adapter_config.json sets {shown(key)} to {shown(value)}"
            raise UserError(problem, file=name, expected=expected, fix="train it again with such settings")


def check_targets(wanted: Sequence[str], layers: Collection[str], of: str) -> None:
    """Refuse a name that no layer to adapt has: PEFT would skip it if another one fits.

    ``layers`` are their names, which may end with a wanted one; ``of`` is what has them.
    """
    for name in wanted:
        if not any(f".{layer}".endswith(f".{name}") for layer in layers):
            last = sorted({layer.rpartition(".")[2] for layer in layers})
            problem = f"no linear layer of {of} is named {shown(name)}"
            raise UserError(problem, key="target_modules", expected=f"{', '.join(last)}, or only all-linear")


def copy_weights(model: Any, weights: Path, adapter: str = "default") -> None:
    """Give a loaded adapter the numbers of its file, in fp32 and in memory of its own.

    PEFT rounds them to a base's 16 bits on the way, or leaves them in the mapped file, where on some CPUs the last bit of a
    product depends on the place at which they begin.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    for name, parameter in model.named_parameters():
        if adapter in name.split("."):
            parameter.data = parameter.data.clone()
    set_peft_model_state_dict(model, load_file(weights), adapter)


def check_adapter(model: Any, weights: Path, adapter: str = "default") -> None:
    """Refuse an adapter file that lacks tensors or has others: PEFT only warns, and the base would answer alone."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        present = set(file.keys())
    if wrong := present ^ set(get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)):
        problem = f"its tensors do not match its configuration (first: {min(wrong)})"
        raise UserError(problem, file=weights, fix="download it or train again")
