"""How fast does an NVIDIA GPU train and annotate, and in how much memory? ``make bench-gpu``, or ``python -m benchmarks.gpu``

The models have the shapes of Llama-2-7B, roberta-base and roberta-large, and random weights, so nothing is downloaded; recipes,
loading, trainers and annotator are the product's. Every measurement is a process of its own (see benchmarks.gpu_jobs). What the
output file has from before stays in it, as what other ``--jobs`` measured on the same GPU with the same settings and code.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from common.cli.arguments import option, parse
from common.cli.console import log, stage
from common.cli.errors import UserError, run
from common.results import rendering
from common.results.finding import Finding, Listing, read_finding
from common.results.record import git_commit, versions
from common.results.scoring import command_line
from common.runtime import hardware
from common.runtime.project import miniature_corpora

MODULE = "benchmarks.gpu"
Job = Literal[
    "qlora-training",
    "qlora-training-t4",
    "annotation-labels",
    "annotation-lists",
    "base-full",
    "base-lora",
    "large-full",
    "large-lora",
]
JOBS: tuple[Job, ...] = get_args(Job)
WARM_UP = 3  # steps
# Of a T4's 15,360 MiB some 450 are the driver's (PyTorch sees 14.56 GiB), and a process's CUDA context takes some 300 more, which
# PyTorch's allocator does not count.
T4_BYTES = (15_360 - 450 - 310) * 2**20
TOLERANCE = 0.1  # of the estimated memory
TITLES: dict[Job, str] = {
    "qlora-training": "Llama-2-7B, QLoRA training",
    "qlora-training-t4": "the same in fp16, in a T4's memory",
    "annotation-labels": "Llama-2-7B, annotating: labels",
    "annotation-lists": "Llama-2-7B, annotating: lists of groups",
    "base-full": "roberta-base, full fine-tuning",
    "base-lora": "roberta-base, LoRA",
    "large-full": "roberta-large, full fine-tuning",
    "large-lora": "roberta-large, LoRA",
}
LIMITS = (
    "What real weights answer: these are random, so generated lists hardly ever end before they are cut, at 64 tokens, and real "
    "ones take less time. Posts and pairs of the miniature are shorter than real ones. A card with a T4's memory is not a T4: "
    "whether a training fits is seen, how fast it would be there is not. Operations are those of linear layers (2 a weight and "
    "token forward, 2 backward, 2 more where it is trained), without attention, head and what checkpointing computes again; their "
    "share (MFU) is of what products of large matrices reach in the same precision on the same GPU."
)


@dataclass(kw_only=True)
class Measured:
    """How much is measured, and on what."""

    steps: int = option(5, "training steps a repeat", minimum=1)
    repeats: int = option(5, "times that each is measured", minimum=1)
    posts: int = option(128, "posts annotated a repeat", minimum=1)
    sbic_dir: Path | None = option(None, "folder with SBIC.v2.{trn,dev,tst}.csv; by default the miniature")
    snli_dir: Path | None = option(None, "folder with snli_1.0_{train,dev,test}.jsonl; by default the miniature")
    llama_tokenizer: Path | None = option(None, "folder of Llama 2's tokenizer; by default the miniature's")
    models_dir: Path = option(Path("output/bench_gpu"), "folder for the models of random weights (14 GB), made once")


@dataclass(kw_only=True)
class GpuArguments(Measured):
    """Measures training and annotating on an NVIDIA GPU: speed, use of the GPU, and memory against the estimate."""

    jobs: tuple[Job, ...] = option(JOBS, "which measurements: " + ", ".join(JOBS))
    output: Path | None = option(None, "JSON file for the finding; by default results/bench-gpu-<the GPU's name>.json")


def sbic_of(arguments: Measured) -> Path:
    return arguments.sbic_dir or miniature_corpora() / "SBIC.v2"


def snli_of(arguments: Measured) -> Path:
    return arguments.snli_dir or miniature_corpora() / "snli_1.0"


def fingerprint(*folders: Path) -> str:
    """Of the corpora's files."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted([*folder.glob("SBIC.v2.*.csv"), *folder.glob("snli_1.0_*.jsonl")]):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def gpu_name() -> str:
    """The GPU's name.

    Raises:
        UserError: There is none.
    """
    if hardware.device_type() != "cuda":
        raise UserError(
            "no NVIDIA GPU is visible to PyTorch, and this measures one",
            fix="run it where `nvidia-smi` lists a GPU, with a CUDA build of PyTorch and ACCELERATE_USE_CPU unset",
        )
    import torch

    return torch.cuda.get_device_name(0)


def measured_apart(job: Job, arguments: Measured) -> dict[str, Any]:
    """A job's numbers, from a process of its own.

    Raises:
        UserError: It failed; it has said why.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.gpu_jobs", "--job", job, "--result", str(result)]
        for one in dataclasses.fields(Measured):
            value = getattr(arguments, one.name)
            command += [] if value is None else [f"--{one.name}", str(value)]
        with stage(TITLES[job]):
            status = subprocess.run(command).returncode
        if status:
            raise UserError(f"it failed with status {status}", file=job, fix="see above")
        return json.loads(result.read_text(encoding="utf-8"))


def gpu_finding(name: str, results: dict[str, dict[str, Any]], arguments: Measured) -> Finding:
    """The finding of some jobs' numbers."""
    order: list[Job] = [job for job in JOBS if job in results]
    speed = [
        [TITLES[job], one["precision"], *(_spread(one.get(key)) for key in ("examples_per_second", "tokens_per_second")),
         _spread(one.get("tokens_per_second_apart") if job.startswith(("qlora", "annotation")) else None),
         _spread(one.get("mfu"), "{:.1%}")]
        for job, one in ((job, results[job]) for job in order)
    ]  # fmt: skip
    memory = [
        [TITLES[job], *(_megabytes(results[job].get(key)) for key in ("estimate_bytes", "peak_bytes", "loading_peak_bytes")),
         _difference(results[job])]
        for job in order
    ]  # fmt: skip
    rates = {job: results[job]["matmul_operations_per_second"] for job in order if "seconds" in results[job]}
    real = [title for title, folder in (("SBIC", arguments.sbic_dir), ("SNLI", arguments.snli_dir)) if folder]
    return Finding(
        name="bench-gpu-" + plain_name(name),
        title="How fast a GPU trains and annotates, and in how much memory",
        task="benchmarks.gpu",
        model=name,
        summary=[sentence for job in order for sentence in _sentences(job, results[job])],
        parts=[
            Listing(
                "Speed: median (least to most of the repeats)",
                ["measurement", "precision", "examples/s", "tokens/s", "tokens/s if each had its instruction", "MFU"],
                speed,
            ),
            Listing("Memory, in MB", ["measurement", "estimated", "most held", "most while loading", "said"], memory),
        ],
        limits=LIMITS,
        data={
            "name": " and ".join(real) + (" and miniature" if len(real) == 1 else "") or "miniature",
            "split": "train and test",
            "fingerprint": fingerprint(sbic_of(arguments), snli_of(arguments)),
        },
        facts={
            "hardware": hardware.describe(),
            "settings": settings(arguments),
            "jobs": results,
            "matmul_operations_per_second": rates,
            "warm-up steps": WARM_UP,
            "t4_bytes": T4_BYTES,
        },
        miniature=len(real) < 2,
        command=command_line(MODULE),
    )


def _sentences(job: Job, one: dict[str, Any]) -> list[str]:
    """What is said of a job."""
    if one.get("fits") is False:
        return [f"{TITLES[job]}: it did not fit the {one['cap_bytes'] / 1e6:,.0f} MB that a T4 leaves ({one['said']})."]
    found = [
        f"{TITLES[job]}: {one['examples_per_second']['median']:,.1f} examples/s, {one['mfu']['median']:.1%} of what the device "
        f"multiplies ({one['matmul_operations_per_second'] / 1e12:,.1f} TFLOP/s in {one['precision']})."
    ]
    if one.get("fits"):
        held = "" if one["peak_bytes"] is None else f", with at most {one['peak_bytes'] / 1e6:,.0f} MB held in training"
        found.append(f"It fits the {one['cap_bytes'] / 1e6:,.0f} MB that a T4 leaves{held}.")
    if said := _difference(one):
        found.append(f"{TITLES[job]}: the memory estimated before loading is {said}.")
    return found


def _difference(one: dict[str, Any]) -> str | None:
    """How far the estimate is from what was held; None where one of them is missing."""
    if not one.get("estimate_bytes") or not one.get("peak_bytes"):
        return None
    off = one["estimate_bytes"] / one["peak_bytes"] - 1
    verdict = "within" if abs(off) <= TOLERANCE else "NOT within"
    return f"{off:+.1%} off, {verdict} {TOLERANCE:.0%}"


def _spread(value: dict[str, float] | None, form: str = "{:,.1f}") -> str | None:
    return value and f"{form.format(value['median'])} ({form.format(value['min'])} to {form.format(value['max'])})"


def _megabytes(value: int | None) -> int | None:
    return None if value is None else round(value / 1e6)


def plain_name(name: str) -> str:
    """A GPU's name for a file: ``NVIDIA A100-SXM4-40GB`` → ``nvidia-a100-sxm4-40gb``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def settings(arguments: Measured) -> dict[str, Any]:
    """What numbers of one record have in common: how much was measured, on which data, by which code."""
    return {
        "steps": arguments.steps,
        "repeats": arguments.repeats,
        "posts": arguments.posts,
        "data": fingerprint(sbic_of(arguments), snli_of(arguments)),
        "commit": git_commit(),
        "versions": versions(),
    }


def earlier(path: Path, name: str, arguments: Measured) -> dict[str, dict[str, Any]]:
    """The numbers that a file has from before, of this GPU and the same settings.

    Raises:
        UserError: The file is no finding, or another GPU's, or of other settings.
    """
    if not path.is_file():
        return {}
    found = read_finding(path)
    if found.model != name:
        raise UserError(f"it holds what was measured on {found.model}", file=path, fix="choose another --output")
    before, now = found.facts["settings"], settings(arguments)
    if other := [key for key, value in now.items() if before[key] != value]:
        raise UserError(
            f"it holds what was measured with other {' and '.join(other)}", file=path, fix="choose another --output"
        )
    return dict(found.facts["jobs"])


def main() -> None:
    arguments = parse(
        GpuArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE}\n  python -m {MODULE} --jobs qlora-training qlora-training-t4 --steps 10",
    )
    name = gpu_name()
    output = arguments.output or Path("results") / f"bench-gpu-{plain_name(name)}.json"
    results = earlier(output, name, arguments)
    for job in arguments.jobs:
        results[job] = measured_apart(job, arguments)
        found = gpu_finding(name, results, arguments)
        found.write(output)  # after each: what was measured is kept when a later one fails
    print("\n".join(rendering.lines(found)))
    log(f"finding: {output}")


if __name__ == "__main__":
    run(main)
