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
GATED, OPEN = "meta-llama/Llama-2-7b-hf", "TinyLlama/TinyLlama_v1.1"
LIBRARIES_BYTES = 800e6  # device memory that the libraries themselves take, roughly
LITTLE_DISK = 20e9  # bytes: Llama 2's weights are 13.5 GB
WEEK = 7 * 86400
DEMO = Path("output/demo/report.html")  # the last file that `make demo` writes


@dataclass(kw_only=True)
class DoctorArguments:
    """Checks this machine, its disk and the Hub login, estimates what each recipe takes here, and suggests what to run next.

    Nothing is trained, downloaded or sent. The Hub is asked only who is logged in and whether Llama 2 may be read.
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


def hub_lines() -> tuple[list[str], bool]:
    """Ask the Hub once who is logged in, and once whether Llama 2 may be read; return the lines and the second answer."""
    from huggingface_hub import HfApi, get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    from common.models.retry import use_retrying_client

    use_retrying_client()
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return ["Hub         not checked: HF_HUB_OFFLINE is set"], False
    if get_token() is None:
        lines = ["Hub         not logged in: run hf auth login or set HF_TOKEN (needed for Llama 2 and for publishing)"]
    else:
        try:
            lines = [f"Hub         logged in as {HfApi().whoami()['name']}"]
        except HfHubHTTPError as error:
            if getattr(error.response, "status_code", None) != 401:
                return [f"Hub         cannot be reached: {str(error).splitlines()[0]}"], False
            lines = ["Hub         the token is not valid: run hf auth login"]
    try:
        get_hf_file_metadata(hf_hub_url(GATED, "config.json"), token=get_token())
    except GatedRepoError:
        access = f"cannot be read yet: accept its license at https://huggingface.co/{GATED}"
    except RepositoryNotFoundError:
        access = "does not exist"
    except (HfHubHTTPError, OSError) as error:
        access = f"could not be checked: {(str(error).splitlines() or [type(error).__name__])[0]}"
    else:
        return [*lines, f"            {GATED} can be read"], True
    return [*lines, f"            {GATED} {access}"], False


def forecasts() -> list[Forecast]:
    """Estimate every recipe of both projects."""
    with stage("estimating what each recipe takes (half a minute)"):
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
        if between and sum(between) / 2 > WEEK:
            time += ": too slow"
        rows.append((str(forecast.recipe), forecast.base, forecast.corpus, memory, fits, time))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


NOTES = (
    '"fits here" is about memory; "too slow" means more than a week, half way between the two times.',
    "miniature: the recipe names no corpus, so the estimate is for that small one. With a real corpus (--data_dir or",
    "--dataset_name) it takes longer.",
)


def checked_lines() -> list[str]:
    """List the bases that were checked on their first use here, and what may be used with each; see docs/bases.md."""
    from common.models.exactness import remembered

    lines = [f"  {exactness.line()}" for exactness in remembered()]
    return ["bases checked on this machine:", *lines, ""] if lines else []


def _fits(forecast: Forecast, machine: Machine) -> bool:
    return bool(forecast.memory) and forecast.memory + LIBRARIES_BYTES <= machine.memory


def _short(seconds: float) -> str:
    return f"{seconds / 86400:,.0f} days" if seconds > 2 * 86400 else duration(seconds)


def program(name: str) -> str:
    """Return how to call a program of the running environment without activating it, such as ``.venv/bin/python``."""
    folder = Path(sys.executable).parent  # not resolved: a virtual environment's interpreter is a link out of it
    local = folder.is_relative_to(Path.cwd()) and (folder / name).exists()
    return shlex.quote(str((folder / name).relative_to(Path.cwd()))) if local else name


def next_command(forecasts: list[Forecast], machine: Machine, may_read: bool) -> list[str]:
    """Suggest what to run next here, with the reason."""
    fitting = {forecast.recipe.name for forecast in forecasts if _fits(forecast, machine)}
    launch = f"  {program('accelerate')} launch --config_file accelerate_config.yaml -m sbic_llama.train_offensive_yn"
    if machine.device == "cuda" and may_read and "llama2_7b_t4.yaml" in fitting:
        return [
            "next: Llama 2 fits this GPU, and you may read it:",
            f"{launch} --config sbic_llama/recipes/llama2_7b_t4.yaml",
        ]
    if machine.device == "cuda" and "tinyllama_t4.yaml" in fitting:
        return [f"next: {OPEN} is open and fits this GPU:", f"{launch} --config sbic_llama/recipes/tinyllama_t4.yaml"]
    study = [
        "full fine-tuning against LoRA on real pairs, a night on a CPU (this only estimates the time):",
        f"  {program('python')} -m snli_roberta.compare --config snli_roberta/recipes/study_cpu.yaml --estimate_only",
    ]
    if not DEMO.is_file():
        first = ["next: everything on the miniature, without a GPU, in minutes:", "  make demo"]
    elif importlib.util.find_spec("gradio"):
        first = ["next: try the models of make demo on a page:", f"  {program('python')} -m sbic_llama.app"]
    else:
        return [f"next: {study[0]}", study[1]]
    return [*first, f"or {study[0]}", study[1]]


def main() -> None:
    parse(DoctorArguments, prog=f"python -m {MODULE}", examples=f"  python -m {MODULE}")
    quiet_libraries()
    machine = measure()
    print("\n".join(map(printable, [*machine_lines(machine), *disk_lines()])), flush=True)
    lines, may_read = hub_lines()
    installed = ", ".join(f"{name} {version}" for name, version in versions().items())
    print("\n".join(map(printable, [*lines, f"versions    {installed}", ""])))
    known = forecasts()
    print("\n".join(map(printable, [*recipe_lines(known, machine), "", *NOTES, "", *checked_lines()])))
    print("\n".join(next_command(known, machine, may_read)))


if __name__ == "__main__":
    run(main)
