"""Test that recipes with mistyped keys, duplicate keys or senseless values are refused by file, line and key."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

from common.cli.arguments import MAX_SEED, parse
from common.cli.errors import UserError
from sbic_llama.training.arguments import FeatureArguments
from sbic_llama.training.arguments import TrainArguments as SbicArguments
from snli_roberta.study.runs import StudyArguments
from snli_roberta.training.arguments import TrainArguments as SnliArguments
from tests.rubbish import check_refusal

ROOT = Path(__file__).parents[1]
RECIPES = sorted(ROOT.glob("*/recipes/*.yaml"))
KINDS = (SbicArguments, FeatureArguments, SnliArguments, StudyArguments)
LARGEST = 10**9
# Which numbers are no mistake: what no run can mean is refused before it, not by a library in its middle.
COUNT = (int, lambda n: 1 <= n <= LARGEST)
SEED = (int, lambda n: 0 <= n <= MAX_SEED)
TOKENS = (int, lambda n: 8 <= n <= LARGEST)
RATE = (float, lambda x: 0 < x <= 1)
NUMBERS: dict[str, tuple[type, Any]] = {
    "learning_rate": RATE,
    "full_learning_rates": RATE,
    "lora_learning_rates": RATE,
    "train_fraction": RATE,
    "num_train_epochs": (float, lambda x: 0 < x <= 10_000),
    "max_steps": (int, lambda n: n == -1 or 1 <= n <= LARGEST),
    "per_device_train_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "evaluations": COUNT,
    "early_stopping_patience": COUNT,
    "logging_steps": COUNT,
    "save_total_limit": (int, lambda n: 2 <= n <= LARGEST),
    "warmup_ratio": (float, lambda x: 0 <= x < 1),
    "lora_dropout": (float, lambda x: 0 <= x < 1),
    "weight_decay": (float, lambda x: 0 <= x <= 1),
    "r": (int, lambda n: 1 <= n <= 4096),
    "lora_alpha": (float, lambda x: 0 < x <= 100_000),
    "seed": SEED,
    "seeds": SEED,
    "sample_seed": SEED,
    "max_length": TOKENS,
    "max_post_tokens": TOKENS,
}
TRIED = (
    "-9", "-1", "0", "1", "2", "7", "8", "4096", "4097", "1000000000", "1000000001", "4294967295", "4294967296", "9" * 5000,
    "0.0", "0.5", "-0.5", "1.0", "1.5", "-1e-4", "1e-4", "1e5", "100001.0", "1e400", "-0.0", "1.", ".5",
)  # fmt: skip
NO_NUMBERS = (
    ".nan", ".inf", "-.inf", "nan", "inf", "Infinity", "text", "1_0", "0x10", "1:30", "９", "1,5", "2020-01-01", "''", "' '",
)  # fmt: skip
NO_VALUES = (
    "",
    "null",
    "~",
    "true",
    "{a: 1}",
    "[[1]]",
    "[{}]",
    "[null]",
    "!!set {a}",
    "!!python/object:os.system {}",
    "*x",
    "[1",
)


def fields_of(kind: type) -> list[dataclasses.Field]:
    """Return the fields of a kind of recipe that no earlier kind has in the same form."""
    before = [field for other in KINDS[: KINDS.index(kind)] for field in dataclasses.fields(other)]
    known = {(field.name, field.type, repr(field.metadata)) for field in before}
    return [field for field in dataclasses.fields(kind) if (field.name, field.type, repr(field.metadata)) not in known]


def kind_of(recipe: Path) -> type:
    if recipe.parent.parent.name == "sbic_llama":
        return FeatureArguments if "feature:" in recipe.read_text(encoding="utf-8") else SbicArguments
    return StudyArguments if "study" in recipe.stem else SnliArguments


def lines_of(recipe: Path) -> list[str]:
    return [line for line in recipe.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def refusal(folder: Path, kind: type, lines: list[str], line: int, *named: str) -> str:
    """Return the error for a recipe that must be refused because of one of its lines."""
    path = folder / "recipe.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        print("not refused:", lines[line], parse(kind, ["--config", str(path)]))
    check_refusal(error.value, path)
    output = str(error.value)
    assert f"line {line + 1}" in output or lines[line].endswith("[1"), (
        output
    )  # what never ends is found wrong at its end
    assert all(word in output for word in named), output
    return output


def mistyped(key: str) -> Iterator[str]:
    """Yield the key with a letter dropped, doubled, or swapped with the next."""
    for place in range(len(key)):
        yield key[:place] + key[place + 1 :]
        yield key[: place + 1] + key[place:]
        yield key[:place] + key[place : place + 2][::-1] + key[place + 2 :]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.parent.name}/{path.stem}")
def test_a_recipe_is_read_and_a_key_given_twice_is_not(tmp_path, recipe):
    kind, lines = kind_of(recipe), lines_of(recipe)
    parse(kind, ["--config", str(recipe)])
    for line in lines:
        key = line.partition(":")[0]
        assert "duplicate key" in refusal(tmp_path, kind, [*lines, line], len(lines), key)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__module__)
def test_a_mistyped_key_is_refused_with_the_one_that_was_meant(tmp_path, kind):
    names = [field.name for field in dataclasses.fields(kind)]
    for key in (field.name for field in fields_of(kind)):
        for wrong in {*mistyped(key)} - {*names, ""}:
            output = refusal(tmp_path, kind, [f"{wrong}: 1"], 0, f"unknown key {wrong!r}")
            assert f"Did you mean {key!r}?" in output or len(key) == 1, output
            with pytest.raises(UserError, match=f"unknown argument --{wrong}") as error:
                parse(kind, [f"--{wrong}", "1"])
            assert f"did you mean {key!r}?" in str(error.value).lower() or len(key) == 1 or key != key.lower()


def required(kind: type) -> dict[str, str]:
    """Return the lines that a recipe of this kind requires."""
    rates = {"full_learning_rates": "[1e-4]", "lora_learning_rates": "[1e-4]", "learning_rate": "1e-4"}
    words = {**rates, "output_dir": "x", "method": "full", "feature": "intentYN"}
    names = {field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING}
    assert names <= words.keys()
    return {name: words[name] for name in sorted(names)}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__module__)
def test_every_value_that_cannot_be_meant_is_refused(tmp_path, kind):
    hints = typing.get_type_hints(kind)
    for field in fields_of(kind):
        optional = type(None) in typing.get_args(hints[field.name])
        others = {name: text for name, text in required(kind).items() if name != field.name}

        def lines(text: str, name: str = field.name, others: dict[str, str] = others) -> list[str]:
            return [f"{name}: {text}", *(f"{key}: {value}" for key, value in others.items())]

        (inner, *_) = [one for one in typing.get_args(hints[field.name]) if one is not type(None)] or [
            hints[field.name]
        ]
        text = (inner if isinstance(inner, type) else hints[field.name]) in (str, Path)
        for value in NO_VALUES:
            if not (optional and value in ("", "null", "~")) and not (hints[field.name] is bool and value == "true"):
                refusal(tmp_path, kind, lines(value), 0, "" if value[:2] in ("*x", "[1") else field.name)
        if field.name in NUMBERS:
            whole, valid = NUMBERS[field.name]
            for value in (*TRIED, *NO_NUMBERS):
                number = as_number(value, whole)
                if number is None or not valid(number):
                    refusal(tmp_path, kind, lines(value), 0, field.name, "; expected ")
                else:
                    (tmp_path / "valid.yaml").write_text("\n".join(lines(value)))
                    result = getattr(parse(kind, ["--config", str(tmp_path / "valid.yaml")]), field.name)
                    assert result in (number, (number,))
        elif not text or typing.get_origin(hints[field.name]) is Literal or hints[field.name] is bool:
            for value in ("text", "0", "-1", "''"):
                refusal(tmp_path, kind, lines(value), 0, field.name, "; expected ")
        else:
            for value in ("''", "' '", '"\\0"', '"\\uD800"', "!!binary aGk="):
                refusal(tmp_path, kind, lines(value), 0, field.name, "; expected ")
    assert {field.name for field in dataclasses.fields(kind)} & NUMBERS.keys() == {
        name for name, hint in hints.items() if {int, float} & {hint, *typing.get_args(hint)}
    }


def as_number(text: str, kind: type) -> int | float | None:
    """Return the number that a person means by a text."""
    if text in NO_NUMBERS or (kind is int and not text.lstrip("-").isdigit()):
        return None
    return 2**64 if len(text) > 1000 else kind(text)


SCRIPTS = {
    "sbic_llama.train_offensive_yn": "sbic_llama/recipes/miniature.yaml",
    "snli_roberta.train_lora": "snli_roberta/recipes/miniature_lora.yaml",
    "snli_roberta.compare": "snli_roberta/recipes/miniature_study.yaml",
}


@pytest.mark.parametrize("module", SCRIPTS)
def test_a_recipe_is_refused_before_anything_heavy_is_imported(tmp_path, module):
    path = tmp_path / "recipe.yaml"
    path.write_text((ROOT / SCRIPTS[module]).read_text(encoding="utf-8") + "warmup_ratio: 2\n")
    line = len(path.read_text().splitlines())
    code = (
        f"import sys, runpy; sys.argv = ['x', '--config', {str(path)!r}]\n"
        f"try: runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as stop: status = stop.code\n"
        "print(status, sorted({'torch', 'transformers', 'trl', 'datasets', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "2 []"
    expected = (
        f"error: {path}, line {line}, key 'warmup_ratio': '2' is not valid; expected a number at least 0 and below 1\n"
    )
    assert result.stderr == expected
