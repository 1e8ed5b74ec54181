"""What this machine can run, and what to run next: ``python -m common.doctor``"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from common.cli.arguments import parse
from common.cli.console import duration, quiet_libraries, stage
from common.cli.errors import run
from common.models.forecast import MINIATURE, Forecast, matmul_rate
from common.results.record import versions
from common.runtime import hardware
from common.runtime.project import PROJECTS

MODULE = "common.doctor"
GATED, OPEN = "meta-llama/Llama-2-7b-hf", "TinyLlama/TinyLlama_v1.1"
LIBRARIES_BYTES = 800e6  # what the libraries themselves take on a device, about
LITTLE_DISK = 20e9  # bytes: Llama 2's weights are 13.5 GB
WEEK = 7 * 86400
DEMO = Path("output/demo/report.html")  # the last that `make demo` writes


@dataclass(kw_only=True)
class DoctorArguments:
    """Looks at the machine, the disk and the login, and says what each recipe would take here and what to run next.

    Nothing is trained, downloaded or sent; the Hub is asked who is logged in and whether the gated base may be read.
    """


@dataclass(frozen=True)
class Machine:
    """What decides what runs here.

    Attributes:
        device: ``cuda``, ``mps`` or ``cpu``.
        memory: Bytes of its memory: a GPU's, or the machine's.
        wide: Precision of models as wide as :data:`common.runtime.hardware.WIDE`, and why.
        rate: Operations a second in that precision.
    """

    device: str
    memory: int
    wide: hardware.Choice
    rate: float


def look() -> Machine:
    """Measures this machine, in a second or two."""
    wide = hardware.choose_precision(width=hardware.WIDE)
    device, memory = hardware.device_type(), hardware.memory_bytes()
    if device == "cuda":
        import torch

        memory = min(torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count()))
    return Machine(device, memory, wide, matmul_rate(wide.value))


def machine_lines(machine: Machine) -> list[str]:
    """The device, its memory, and the precision with its reason."""
    known = hardware.describe()
    names = [gpu["name"] for gpu in known.get("gpus", [])] or [f"{known['cpu']}, {known['cores']} cores"]  # type: ignore[attr-defined]
    narrow = hardware.choose_precision(width=hardware.WIDE - 1)
    lines = [
        f"device      {', '.join(names)} ({machine.device})",
        f"memory      {machine.memory / 1e9:,.1f} GB",
        f"precision   {machine.wide.value}: {machine.wide.reason}",
    ]
    if narrow.value != machine.wide.value:
        lines[-1] += f" (models narrower than {hardware.WIDE}: {narrow.value})"
    return [*lines, f"speed       {machine.rate / 1e12:,.2f} TFLOP/s in products of large matrices"]


def disk_lines() -> list[str]:
    """Space where outputs and downloads go."""
    from huggingface_hub.constants import HF_HUB_CACHE

    lines = []
    for what, folder in (("output/", Path.cwd()), ("the Hub's cache", Path(HF_HUB_CACHE))):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        free = shutil.disk_usage(there).free
        little = free < LITTLE_DISK
        lines.append(
            f"disk        {free / 1e9:,.0f} GB free for {what}" + (": little for a 7B base (13.5 GB)" if little else "")
        )
    return lines


def hub_lines() -> tuple[list[str], bool]:
    """Who is logged in and whether the gated base may be read, each asked once; and whether it may."""
    from huggingface_hub import HfApi, get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    from common.models.retry import use_patient_client

    use_patient_client()
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return ["Hub         not asked: HF_HUB_OFFLINE is set"], False
    if get_token() is None:
        lines = ["Hub         not logged in: hf auth login, or set HF_TOKEN (only for Llama 2 and for publishing)"]
    else:
        try:
            lines = [f"Hub         logged in as {HfApi().whoami()['name']}"]
        except HfHubHTTPError as error:
            answered = getattr(error.response, "status_code", None) == 401
            said = (
                "the token is not valid: hf auth login"
                if answered
                else f"can't be reached: {str(error).splitlines()[0]}"
            )
            lines = [f"Hub         {said}"]
            if not answered:
                return lines, False
    try:
        get_hf_file_metadata(hf_hub_url(GATED, "config.json"), token=get_token())
    except GatedRepoError:
        said = f"may not be read yet: accept its licence at https://huggingface.co/{GATED}"
    except RepositoryNotFoundError:
        said = "is not there"
    except (HfHubHTTPError, OSError) as error:
        said = f"could not be asked for: {(str(error).splitlines() or [type(error).__name__])[0]}"
    else:
        return [*lines, f"            {GATED} may be read"], True
    return [*lines, f"            {GATED} {said}"], False


def forecasts() -> list[Forecast]:
    """Of every recipe of both projects."""
    with stage("reckoning what each recipe takes, a minute or two"):
        return [one for name in PROJECTS for one in importlib.import_module(f"{name}.training.forecast").forecasts()]


def recipe_lines(forecasts: list[Forecast], machine: Machine) -> list[str]:
    """A line for each recipe: its base and corpus, the memory that it takes, whether it fits, and how long it would take."""
    rows = [("recipe", "base model", "corpus", "memory", "fits here", "time here, very roughly")]
    for one in forecasts:
        fits = "?" if one.memory is None else "yes" if one.memory + LIBRARIES_BYTES <= machine.memory else "no"
        memory = "?" if one.memory is None else f"{one.memory / 1e9:,.1f} GB"
        between = one.seconds(machine.rate)
        time = "?" if between is None else f"{_short(between[0])} to {_short(between[1])}"
        if between and sum(between) / 2 > WEEK:
            time += ": too slow"
        rows.append((str(one.recipe), one.base, one.corpus, memory, fits, time))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


NOTES = (
    "fits here: the memory does. Too slow: half way between the two times is more than a week.",
    f"{MINIATURE}: the recipe names no corpus and is reckoned on that small one; on a real one, given by --data_dir or",
    "--dataset_name, it takes longer.",
)


def _short(seconds: float) -> str:
    return f"{seconds / 86400:,.0f} days" if seconds > 2 * 86400 else duration(seconds)


def program(name: str) -> str:
    """How to call a program that lies beside the interpreter that runs: by its path where that is below this directory, as
    ``.venv/bin/python``, which needs no active environment."""
    folder = Path(sys.executable).parent  # not resolved: a virtual environment's interpreter is a link out of it
    there = folder.is_relative_to(Path.cwd()) and (folder / name).exists()
    return shlex.quote(str((folder / name).relative_to(Path.cwd()))) if there else name


def next_command(forecasts: list[Forecast], machine: Machine, may_read: bool) -> list[str]:
    """What to run next here, with the reason."""
    fitting = {one.recipe.name for one in forecasts if one.memory and one.memory + LIBRARIES_BYTES <= machine.memory}
    launch = (
        f"{program('accelerate')} launch --config_file accelerate_config.yaml -m sbic_llama.train_offensive_yn --config"
    )
    if machine.device == "cuda" and may_read and "llama2_7b_t4.yaml" in fitting:
        return ["next, Llama 2 fits this GPU and may be read:", f"  {launch} sbic_llama/recipes/llama2_7b_t4.yaml"]
    if machine.device == "cuda" and "tinyllama_t4.yaml" in fitting:
        return [f"next, {OPEN} needs no licence and fits this GPU:", f"  {launch} sbic_llama/recipes/tinyllama_t4.yaml"]
    study = [
        "the study of full fine-tuning against LoRA on real pairs, a night on a CPU; ask it first:",
        f"  {program('python')} -m snli_roberta.compare --config snli_roberta/recipes/study_cpu.yaml --estimate_only",
    ]
    if not DEMO.is_file():
        first = ["next, without a GPU, all of it on the miniature, in minutes:", "  make demo"]
    elif importlib.util.find_spec("gradio"):
        first = ["next, try the models of make demo on a page:", f"  {program('python')} -m sbic_llama.app"]
    else:
        return [f"next, {study[0]}", study[1]]
    return [*first, f"or {study[0]}", study[1]]


def main() -> None:
    parse(DoctorArguments, prog=f"python -m {MODULE}", examples=f"  python -m {MODULE}")
    quiet_libraries()
    machine = look()
    print("\n".join([*machine_lines(machine), *disk_lines()]), flush=True)
    lines, may_read = hub_lines()
    print(
        "\n".join([*lines, "versions    " + ", ".join(f"{name} {version}" for name, version in versions().items()), ""])
    )
    told = forecasts()
    print("\n".join([*recipe_lines(told, machine), "", *NOTES, "", *next_command(told, machine, may_read)]))


if __name__ == "__main__":
    run(main)
