"""Show what this machine can run, and what to run next: ``python -m common.doctor``"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli.arguments import parse
from common.cli.console import duration, quiet_libraries, stage
from common.cli.errors import printable, run
from common.results.record import versions
from common.runtime import hardware
from common.runtime.project import PROJECTS

if TYPE_CHECKING:
    from common.models.step_memory import Forecast

MODULE = "common.doctor"
REAL = (
    "gpu",
    "llama2_7b_t4",
    "tinyllama_t4",
    "smollm2_cpu",
)  # recipes for any feature of SBIC, with a base of some use
GATED = ("meta-llama/", "google/", "mistralai/")  # owners whose bases may have a license to accept first
NOT_IN_FP16 = "google/gemma-3"  # its activations exceed what fp16 can hold
LIBRARIES_BYTES = 800e6  # device memory that the libraries themselves take, roughly
LITTLE_DISK = 20e9  # bytes: Llama 2's weights are 13.5 GB
DAY = 86400
WEEK = 7 * DAY
DEMO = Path("output/demo/report.html")  # the last file that `make demo` writes


@dataclass(kw_only=True)
class DoctorArguments:
    """Checks this machine, its disk and the Hub login, estimates what each recipe takes here, and suggests what to run next.

    Nothing is trained, downloaded or sent. The Hub is asked only who is logged in and whether bases for this machine may be read.
    """


@dataclass(frozen=True)
class Machine:
    """What decides which recipes run here."""

    device: str  # cuda, mps or cpu
    memory: int  # bytes: the smallest GPU's, or the machine's
    wide: hardware.Choice  # precision of models at least as wide as hardware.WIDE, and why
    rate: float  # operations per second in that precision


def measure() -> Machine:
    """Measure this machine, in a second or two."""
    from common.models.step_memory import matmul_rate

    wide = hardware.choose_precision(width=hardware.WIDE)
    device, memory = hardware.device_type(), hardware.memory_bytes()
    if device == "cuda":
        import torch

        memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    return Machine(device, memory, wide, matmul_rate(wide.value))


def machine_lines(machine: Machine) -> list[str]:
    known = hardware.describe()
    names = [gpu["name"] for gpu in known.get("gpus", [])] or [f"{known['cpu']}, {known['cores']} cores"]  # type: ignore[attr-defined]
    narrow = hardware.choose_precision(width=hardware.WIDE - 1).value
    other = "" if narrow == machine.wide.value else f" (models narrower than {hardware.WIDE}: {narrow})"
    return [
        f"device      {', '.join(names)} ({machine.device})",
        f"memory      {machine.memory / 1e9:,.1f} GB",
        f"precision   {machine.wide.value}: {machine.wide.reason}{other}",
        f"speed       {machine.rate / 1e12:,.2f} TFLOP/s in products of large matrices",
    ]


def disk_lines() -> list[str]:
    from huggingface_hub.constants import HF_HUB_CACHE

    lines = []
    for what, folder in (("output/", Path.cwd()), ("the Hub cache", Path(HF_HUB_CACHE))):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(existing).free
        note = ": little for a 7B base (13.5 GB)" if free < LITTLE_DISK else ""
        lines.append(f"disk        {free / 1e9:,.0f} GB free for {what}{note}")
    return lines


def hub_lines() -> list[str]:
    """Ask the Hub who is logged in."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    from common.models.retry import use_retrying_client

    use_retrying_client()
    if hub_is_off():
        return ["Hub         not checked: HF_HUB_OFFLINE is set"]
    if get_token() is None:
        return [
            "Hub         not logged in: run hf auth login or set HF_TOKEN (for gated bases such as Llama, and for publishing)"
        ]
    try:
        return [f"Hub         logged in as {HfApi().whoami()['name']}"]
    except HfHubHTTPError as error:
        if getattr(error.response, "status_code", None) != 401:
            return [f"Hub         cannot be reached: {str(error).splitlines()[0]}"]
        return ["Hub         the token is not valid: run hf auth login"]


def hub_is_off() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def may_read(base: str) -> bool:
    """Ask the Hub whether this user may read a base; without an answer, only bases that nobody has to ask for."""
    from huggingface_hub import get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if not base.startswith(GATED):
        return True
    if hub_is_off():
        return False
    try:
        get_hf_file_metadata(hf_hub_url(base, "config.json"), token=get_token())
    except (GatedRepoError, RepositoryNotFoundError, HfHubHTTPError, OSError):
        return False
    return True


def forecasts() -> list[Forecast]:
    """Estimate every recipe of both projects."""
    with stage("estimating what each recipe takes"):
        modules = [importlib.import_module(f"{name}.training.forecast") for name in PROJECTS]
        return [forecast for module in modules for forecast in module.forecasts()]


def recipe_lines(forecasts: list[Forecast], machine: Machine) -> list[str]:
    """Lay out a table with a row for each recipe."""
    rows = [("recipe", "base model", "corpus", "memory", "fits here", "time here, very roughly")]
    for forecast in forecasts:
        fits = "?" if forecast.memory is None else "yes" if _fits(forecast, machine) else "no"
        memory = "?" if forecast.memory is None else f"{forecast.memory / 1e9:,.1f} GB"
        between = forecast.seconds(machine.rate)
        time = "?" if between is None else f"{_short(between[0])} to {_short(between[1])}"
        if _takes(forecast, machine) > WEEK:
            time += ": too slow"
        rows.append((str(forecast.recipe), forecast.base, forecast.corpus, memory, fits, time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


NOTE = '"fits here" is about memory; "too slow" means more than a week, half way between the two times.'


def checked_lines() -> list[str]:
    """List the bases that were checked on their first use here, and what may be used with each; see docs/bases.md."""
    from common.models.exactness import remembered

    lines = [f"  {exactness.line()}" for exactness in remembered()]
    return ["bases checked on this machine:", *lines, ""] if lines else []


def _fits(forecast: Forecast, machine: Machine) -> bool:
    return bool(forecast.memory) and forecast.memory + LIBRARIES_BYTES <= machine.memory


def _takes(forecast: Forecast, machine: Machine) -> float:
    """Return the seconds half way between the least and most time of a forecast; 0 where it has none."""
    return sum(forecast.seconds(machine.rate) or ()) / 2


def _short(seconds: float) -> str:
    return f"{seconds / DAY:,.0f} days" if seconds > 2 * DAY else duration(seconds)


def program(name: str) -> str:
    """Return how to call a program of the running environment without activating it, such as ``.venv/bin/python``."""
    folder = Path(sys.executable).parent  # not resolved: a virtual environment's interpreter is a link out of it
    local = folder.is_relative_to(Path.cwd()) and (folder / name).exists()
    return shlex.quote(str((folder / name).relative_to(Path.cwd()))) if local else name


def best(forecasts: list[Forecast], machine: Machine) -> tuple[Forecast | None, list[str]]:
    """Choose the largest base that fits here, trains within a day, and may be read; also return those that may not."""
    known = [each for each in forecasts if each.recipe.stem in REAL and _fits(each, machine) and each.operations]
    closed: list[str] = []
    for forecast in sorted(known, key=lambda each: each.operations or 0, reverse=True):
        overflows = machine.wide.value == "fp16" and forecast.base.startswith(NOT_IN_FP16)
        if overflows or _takes(forecast, machine) > DAY:
            continue
        if may_read(forecast.base):
            return forecast, closed
        closed.append(forecast.base)
    return None, closed


def next_command(forecasts: list[Forecast], machine: Machine) -> list[str]:
    """Suggest what to run next here, each with the reason."""
    proposals: list[tuple[str, ...]] = []
    chosen, closed = best(forecasts, machine)
    if chosen:
        launch = f"{program('accelerate')} launch --config_file accelerate_config.yaml -m sbic_llama.train_offensive_yn"
        time = " to ".join(map(_short, chosen.seconds(machine.rate) or ()))
        reason = f"{chosen.base}, the largest base that fits here and trains within a day ({time}, very roughly)"
        command = " ".join((launch, "--config", chosen.recipe.as_posix(), *chosen.options))
        note = f"larger, but cannot be read: {closed[0]} (see https://huggingface.co/{closed[0]})" if closed else ""
        proposals.append((reason, command, note))
    if not DEMO.is_file():
        proposals.append(("everything on the miniature, without a GPU, in minutes", "make demo"))
    elif importlib.util.find_spec("gradio"):
        proposals.append(("try the models of make demo on a page", f"{program('python')} -m sbic_llama.app"))
    study = "-m snli_roberta.compare --config snli_roberta/recipes/study_cpu.yaml --estimate_only"
    reason = "full fine-tuning against LoRA on real pairs, a night on a CPU (this only estimates the time)"
    proposals.append((reason, f"{program('python')} {study}"))
    words = ("next: ", *["or "] * len(proposals))
    return [
        line
        for word, (reason, *rest) in zip(words, proposals, strict=False)
        for line in (f"{word}{reason}:", *(f"  {line}" for line in rest if line))
    ]


def main() -> None:
    parse(DoctorArguments, prog=f"python -m {MODULE}", examples=f"  python -m {MODULE}")
    quiet_libraries()
    machine = measure()
    print("\n".join(map(printable, [*machine_lines(machine), *disk_lines()])), flush=True)
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    print("\n".join(map(printable, [*hub_lines(), f"versions    {installed}", ""])))
    known = forecasts()
    print("\n".join(map(printable, [*recipe_lines(known, machine), "", NOTE, "", *checked_lines()])))
    print("\n".join(next_command(known, machine)))


if __name__ == "__main__":
    run(main)
