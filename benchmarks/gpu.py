"""Measure how fast an NVIDIA GPU trains and annotates, and in how much memory: ``make bench-gpu`` or ``python -m benchmarks.gpu``

The models have the shapes of Llama-2-7B, roberta-base and roberta-large and random weights, so nothing is downloaded; recipes,
loading, trainers and annotator are the product's. Every measurement has its own process (see benchmarks.gpu_jobs). An output file
keeps what other ``--jobs`` measured before on the same GPU with the same settings and code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.jobs import GPU_JOBS, T4_BYTES, WARM_UP, GpuJob, GpuSettings
from benchmarks.materials import SBIC, SNLI, digest
from common.cli.arguments import option, parse
from common.cli.console import log, stage
from common.cli.errors import UserError, run
from common.results import rendering
from common.results.finding import Finding, Listing, read_finding, worded
from common.results.record import git_commit, versions
from common.results.scoring import command_line
from common.runtime import hardware
from common.runtime.child_process import call
from common.tables.report import fingerprint

MODULE = "benchmarks.gpu"
TOLERANCE = 0.1  # of the estimated memory
WORDS = Path(__file__).with_name("templates") / "gpu.jinja"
TITLES: dict[GpuJob, str] = {
    "qlora-training": "Llama-2-7B, QLoRA training",
    "qlora-training-t4": "Llama-2-7B, QLoRA training in fp16, in a T4's memory",
    "annotation-labels": "Llama-2-7B, annotating: labels",
    "annotation-lists": "Llama-2-7B, annotating: lists of groups",
    "base-full": "roberta-base, full fine-tuning",
    "base-lora": "roberta-base, LoRA",
    "large-full": "roberta-large, full fine-tuning",
    "large-lora": "roberta-large, LoRA",
}
SPEED = ["measurement", "precision", "examples/s", "tokens/s", "tokens/s if each had its instruction", "MFU"]
MEMORY = ["measurement", "estimated", "peak", "peak while loading", "estimate against peak"]


@dataclass(kw_only=True)
class GpuArguments(GpuSettings):
    """Measure training and annotating on an NVIDIA GPU: speed, utilization, and memory against the estimate."""

    jobs: tuple[GpuJob, ...] = option(GPU_JOBS, "measurements: " + ", ".join(GPU_JOBS))
    output: Path | None = option(None, "JSON file for the finding (default: results/bench-gpu-<the GPU's name>.json)")


def main() -> None:
    examples = f"  python -m {MODULE}\n  python -m {MODULE} --jobs qlora-training qlora-training-t4 --steps 10"
    arguments = parse(GpuArguments, prog=f"python -m {MODULE}", examples=examples)
    name = gpu_name()
    output = arguments.output or Path("results") / f"bench-gpu-{plain_name(name)}.json"
    results = earlier(output, name, arguments)
    from benchmarks.gpu_jobs import measure

    for job in arguments.jobs:
        with stage(TITLES[job]):
            results[job] = call(partial(measure, job), arguments, preload="common.cli.console")
        finding = gpu_finding(name, results, arguments)
        finding.write(output)  # after each: what was measured is kept if a later one fails
    print("\n".join(rendering.lines(finding)))
    log(f"finding: {output}")


def gpu_name() -> str:
    """Return the GPU's name; a UserError if there is none."""
    if hardware.device_type() != "cuda":
        fix = "run it where `nvidia-smi` lists a GPU, with a CUDA build of PyTorch and ACCELERATE_USE_CPU unset"
        raise UserError("PyTorch sees no NVIDIA GPU, and this command measures one", fix=fix)
    import torch

    return torch.cuda.get_device_name(0)


def plain_name(name: str) -> str:
    """Return a GPU's name for a file: ``NVIDIA A100-SXM4-40GB`` → ``nvidia-a100-sxm4-40gb``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def shared_settings(arguments: GpuSettings) -> dict[str, Any]:
    """Return what the numbers of one record have in common: how much was measured, on which data, by which code."""
    amounts = {name: getattr(arguments, name) for name in ("steps", "repeats", "posts")}
    data = fingerprint(digest(folder, SBIC, SNLI) for folder in arguments.corpora())
    return {**amounts, "data": data, "commit": git_commit(), "versions": versions()}


def earlier(path: Path, name: str, arguments: GpuSettings) -> dict[str, dict[str, Any]]:
    """Return the numbers that a file already has; a UserError if they are of another GPU or of other settings."""
    if not path.is_file():
        return {}
    finding, fix = read_finding(path), "choose another --output"
    if finding.model != name:
        raise UserError(f"it holds measurements of {finding.model}", file=path, expected=name, fix=fix)
    before = finding.facts["settings"]
    if other := [key for key, value in shared_settings(arguments).items() if before[key] != value]:
        raise UserError(f"its measurements were made with different {' and '.join(other)}", file=path, fix=fix)
    return dict(finding.facts["jobs"])


def gpu_finding(name: str, results: dict[str, dict[str, Any]], arguments: GpuSettings) -> Finding:
    """Return the finding of some measurements."""
    jobs = [
        {"fits": None, **results[job], "job": job, "title": TITLES[job], "difference": _difference(results[job])}
        for job in GPU_JOBS
        if job in results
    ]
    real = [title for title, folder in (("SBIC", arguments.sbic_dir), ("SNLI", arguments.snli_dir)) if folder]
    data = " and ".join(real) + (" and miniature" if len(real) == 1 else "") or "miniature"
    rates = {job["job"]: job["matmul_operations_per_second"] for job in jobs if "seconds" in job}
    shared = shared_settings(arguments)
    return Finding(
        name="bench-gpu-" + plain_name(name),
        task=MODULE,
        model=name,
        **worded(WORDS, jobs=jobs),
        parts=[
            Listing("Speed: median (range of the repeats)", SPEED, [_speed(job) for job in jobs]),
            Listing("Memory, in MB", MEMORY, [_memory(job) for job in jobs]),
        ],
        data={"name": data, "split": "train and test", "fingerprint": shared["data"]},
        facts={
            "hardware": hardware.describe(),
            "settings": shared,
            "jobs": results,
            "matmul_operations_per_second": rates,
            "warm-up steps": WARM_UP,
            "t4_bytes": T4_BYTES,
        },
        miniature=len(real) < 2,
        command=command_line(MODULE),
    )


def _speed(job: dict[str, Any]) -> list[str | None]:
    def spread(key: str, form: str = "{:,.1f}") -> str | None:
        value = job.get(key)
        return value and f"{form.format(value['median'])} ({form.format(value['min'])} to {form.format(value['max'])})"

    packed = job["job"].startswith(("qlora", "annotation"))
    rates = spread("examples_per_second"), spread("tokens_per_second")
    return [job["title"], job["precision"], *rates, spread("tokens_per_second_apart") if packed else None,
            spread("mfu", "{:.1%}")]  # fmt: skip


def _memory(job: dict[str, Any]) -> list[Any]:
    values = [job.get(key) for key in ("estimate_bytes", "peak_bytes", "loading_peak_bytes")]
    return [job["title"], *(value if value is None else round(value / 1e6) for value in values), job["difference"]]


def _difference(job: dict[str, Any]) -> str | None:
    """Say how far the estimate is from the peak; None if one of them is missing."""
    if not job.get("estimate_bytes") or not job.get("peak_bytes"):
        return None
    off = job["estimate_bytes"] / job["peak_bytes"] - 1
    verdict = "within" if abs(off) <= TOLERANCE else "NOT within"
    return f"{off:+.1%} off, {verdict} {TOLERANCE:.0%}"


if __name__ == "__main__":
    run(main)
