"""How soon every command of both projects answers: its help, and what it refuses."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from statistics import median

from benchmarks.alternating import python
from benchmarks.setting import ROOT, environment
from common.cli.console import log
from common.cli.errors import UserError

TARGET = 1.5  # seconds
PROJECTS = ("sbic_llama", "snli_roberta")
NOWHERE = "./no_such_folder"
_TRAIN = ("--data_dir", NOWHERE, "--learning_rate", "1e-4")
# A command line that names a file that is not there; `{}` is a folder to write to.
MISSING: dict[str, tuple[str, ...]] = {
    "sbic_llama.app": ("--adapter", NOWHERE),
    "sbic_llama.annotate": ("no_such_file.csv", "--adapter", NOWHERE, "--output", "{}/out.csv"),
    "sbic_llama.baselines": ("--data_dir", NOWHERE, "--output_dir", "{}"),
    "sbic_llama.prevalence": ("no_such.csv", "--human_labels", "no_labels.csv", "--key", "id", "--feature", "offensiveYN"),
    "sbic_llama.evaluate": ("--adapter", NOWHERE, "--output_dir", "{}"),
    "sbic_llama.robustness": ("--adapter", NOWHERE, "--output_dir", "{}"),
    "sbic_llama.train": ("--feature", "intentYN", *_TRAIN, "--output_dir", "{}"),
    "sbic_llama.train_has_biased_implication": (*_TRAIN, "--output_dir", "{}"),
    "sbic_llama.train_offensive_yn": (*_TRAIN, "--output_dir", "{}"),
    "sbic_llama.train_target_minority": (*_TRAIN, "--output_dir", "{}"),
    "sbic_llama.trust": ("no_such.csv", "--human_labels", "no_labels.csv", "--key", "id", "--adapter", NOWHERE),
    "snli_roberta.adversarial": ("--model", NOWHERE, "--output_dir", "{}"),
    "snli_roberta.app": ("--model", NOWHERE),
    "snli_roberta.compare": ("--config", "snli_roberta/recipes/miniature_study.yaml", "--data_dir", NOWHERE, "--output_dir", "{}"),
    "snli_roberta.baselines": ("--data_dir", NOWHERE, "--output_dir", "{}"),
    "snli_roberta.disagreement": ("--model", NOWHERE, "--output_dir", "{}"),
    "snli_roberta.evaluate": ("--model", NOWHERE, "--title", "it", "--output_dir", "{}"),
    "snli_roberta.predict": ("--model", NOWHERE, "--input", "no_such_file.csv", "--output", "{}/out.csv"),
    "snli_roberta.train_full": ("--method", "full", *_TRAIN, "--output_dir", "{}"),
    "snli_roberta.train_lora": ("--method", "lora", *_TRAIN, "--output_dir", "{}"),
}  # fmt: skip


def commands() -> list[str]:
    """The modules of both projects that are commands."""
    found = []
    for project in PROJECTS:
        for path in sorted((ROOT / project).rglob("*.py")):
            if '__name__ == "__main__"' in path.read_text(encoding="utf-8"):
                parts = path.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(parts[:-1] if parts[-1] == "__main__" else parts))
    return found


def seconds_of(words: list[str], status: int, cores: int) -> float:
    """How long a command takes to answer and end.

    Raises:
        UserError: It ends with another status than it should.
    """
    begun = time.perf_counter()
    done = subprocess.run(
        words, cwd=ROOT, env=environment(cores), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    seconds = time.perf_counter() - begun
    if done.returncode != status:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{' '.join(words[2:])}: it ended with status {done.returncode}: {last}", expected=f"{status}")
    return seconds


def measure(scratch: str, cores: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by what is asked and by command, a number a round.

    Raises:
        UserError: A command has no line that names a missing file, or answers otherwise than it should.
    """
    if unknown := sorted(set(commands()) - set(MISSING)):
        raise UserError(f"{unknown[0]} has no command line in benchmarks/start.py", expected="one with a missing file")
    asked = {
        "--help": {name: (["--help"], 0) for name in commands()},
        "an unknown option": {name: (["--no_such_option", "1"], 2) for name in commands()},
        "a missing file": {name: ([w.format(scratch) for w in MISSING[name]], 2) for name in commands()},
    }
    found: dict[str, dict[str, list[float]]] = {what: {name: [] for name in lines} for what, lines in asked.items()}
    for _ in range(rounds):
        for what, lines in asked.items():
            for name, (words, status) in lines.items():
                found[what][name].append(seconds_of(python(name, *words), status, cores))
            log(f"{what}: {len(lines)} commands")
    return found


def rows(found: dict[str, dict[str, list[float]]]) -> list[list]:
    """A row for each thing asked: how many commands, median, the slowest, which that is, the target, whether it is met."""
    made = []
    for what, lines in found.items():
        each = {name: median(seconds) for name, seconds in lines.items()}
        slowest = max(each, key=lambda name: each[name])
        made.append([what, len(each), round(median(each.values()), 2), round(each[slowest], 2), slowest,
                     f"< {TARGET} s", each[slowest] < TARGET])  # fmt: skip
    return made


COLUMNS = ["asked", "commands", "median seconds", "slowest", "which", "target", "met"]


def scratch_of(folder: str) -> str:
    """A folder for what a refused command might write."""
    path = Path(folder) / "start"
    path.mkdir(exist_ok=True)
    return str(path)
