"""Time the product against the tools that a user would pick instead: ``python -m benchmarks``"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import growth, solo
from benchmarks.jobs import COLUMNS, JOBS, Job, JobResult, Name, Needs, agreement, targets
from benchmarks.processes import Setting, SideProcess, alternate, finished, python
from common.cli.arguments import option, parse
from common.cli.console import log, stage
from common.cli.errors import UserError, run
from common.results.finding import Finding, Listing, worded
from common.results.rendering import lines
from common.results.scoring import command_line
from common.runtime import hardware

MODULE = "benchmarks"
NAMES: tuple[Name, ...] = typing.get_args(Name)
WORDS = Path(__file__).with_name("templates") / "bench.jinja"


@dataclass(kw_only=True)
class BenchArguments:
    """Time the product and other tools in turn on the CPU, with the same model on the same rows."""

    quick: bool = option(False, "fewer rows and rounds")
    rounds: int | None = option(None, "rounds per job (default: the job's own number)", minimum=1)
    jobs: tuple[Name, ...] = option((), "jobs to run (default: all; with --quick, all but size and growth)")
    sbic_dir: Path | None = option(None, "folder with SBIC.v2.{trn,dev,tst}.csv (default: the miniature)")
    snli_dir: Path | None = option(None, "folder with snli_1.0_{train,dev,test}.jsonl (default: the miniature)")
    llama: str = option("HuggingFaceTB/SmolLM2-135M-Instruct", "folder or Hub id of a model of the Llama architecture")
    encoder: str = option("sentence-transformers/all-MiniLM-L6-v2", "folder or Hub id of an encoder")
    classifier: Path | None = option(None, "folder of a classifier of pairs (default: one is trained once)")
    besides: str = option("nothing else", "what else was running on the machine, for the record")
    output: Path | None = option(None, "JSON file to write (default: results/bench-cpu-N-cores.json for a full run on real "
                                 "corpora, otherwise output/bench.json)")  # fmt: skip

    def __post_init__(self) -> None:
        if not self.jobs:
            self.jobs = tuple(name for name in NAMES if not (self.quick and name in ("size", "growth")))
        files = {"sbic_dir": "SBIC.v2.trn.csv", "snli_dir": "snli_1.0_train.jsonl", "classifier": "config.json"}
        for key, file in files.items():
            folder = getattr(self, key)
            if folder is not None and not (folder / file).exists():
                raise UserError(f"{folder / file} does not exist", key=key, fix="check the path")


def main() -> None:
    more = '--jobs "SNLI prediction" --rounds 3 --snli_dir path/to/snli_1.0 --output bench.json'
    examples = f"  python -m {MODULE} --quick\n  python -m {MODULE} {more}"
    arguments = parse(BenchArguments, prog=f"python -m {MODULE}", examples=examples)
    if "SBIC classification" in arguments.jobs and importlib.util.find_spec("lm_eval") is None:
        fix = "pip install -r requirements-bench.txt, or run make bench"
        raise UserError("lm-evaluation-harness is not installed", fix=fix)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    cores = hardware.cpu_threads()
    output = arguments.output or default_output(arguments, cores)
    os.environ["OMP_NUM_THREADS"] = str(cores)  # before this process loads torch itself
    partial_output = output.with_name(f"{output.stem}.part.json")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        for finding in bench(arguments, Path(scratch), cores):  # after each job: an error must not cost the others
            finding.write(partial_output)
    print("\n".join(lines(finding)))
    partial_output.rename(output)
    log(f"written: {output}")


def default_output(arguments: BenchArguments, cores: int) -> Path:
    """Return where the finding goes: only a full run on real corpora is kept among the results."""
    partial_run = arguments.quick or arguments.rounds or arguments.jobs != NAMES
    own = None in (arguments.sbic_dir, arguments.snli_dir)
    return Path("output/bench.json") if partial_run or own else Path("results") / f"bench-cpu-{cores}-cores.json"


def bench(arguments: BenchArguments, scratch: Path, cores: int) -> Iterator[Finding]:
    """Run the chosen jobs; yield what has been measured after each."""
    machine = json.loads(finished("matrix products", python("benchmarks.flops")).splitlines()[-1])
    rates = machine["rates"]
    log("matrix products: " + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in rates.items()))
    chosen = [job for job in JOBS if job.name in arguments.jobs]
    setting = prepare(arguments, {job.needs for job in chosen}, scratch)
    results: list[JobResult] = []
    alone: dict[str, Any] = {}

    def measured() -> Finding:
        return _finding(arguments, cores, machine, _data(arguments, setting), results, alone)

    for job in chosen:
        with stage(job.name):
            results.append(run_job(job, setting, arguments))
        yield measured()
    rounds = arguments.rounds or (1 if arguments.quick else 3)
    measurements: dict[str, Callable[[], Any]] = {
        "start": lambda: solo.measure_start(scratch, rounds),
        "size": lambda: solo.measure_size(scratch, quick=arguments.quick),
        "width": lambda: solo.measure_width(setting, rounds, quick=arguments.quick),
        "growth": lambda: growth.measure_growth(scratch, quick=arguments.quick),
    }
    for name, measure in measurements.items():
        if name in arguments.jobs:
            alone[name] = measure()
            yield measured()


ALONE: dict[str, tuple[str, list[str], Callable[[Any], list[list]]]] = {  # job → title, columns and rows of its table
    "start": ("Startup time of commands", solo.START_COLUMNS, solo.start_rows),
    "size": ("Cost of a row in a small file and in a large one", solo.SIZE_COLUMNS, solo.size_rows),
    "width": ("Full fine-tuning by the model's width and precision", solo.WIDTH_COLUMNS, solo.width_rows),
    "growth": ("CPU time and peak memory as the input grows", growth.GROWTH_COLUMNS, growth.growth_rows),
}


def _finding(
    arguments: BenchArguments,
    cores: int,
    machine: dict[str, Any],
    data: dict[str, Any],
    results: list[JobResult],
    alone: dict[str, Any],
) -> Finding:
    parts = []
    if results:
        rows = [row for result in results for row in result.rows(machine["rates"])]
        parts.append(Listing("The product against other tools, medians", COLUMNS, rows))
    for name, values in alone.items():
        title, columns, rows_of = ALONE[name]
        parts.append(Listing(title, columns, rows_of(values)))
    return Finding(
        name="bench",
        task="benchmarks",
        model=f"CPU, {cores} cores",
        **worded(WORDS, **targets(parts)),
        parts=parts,
        data={"name": data["name"], "split": "train and test", "fingerprint": data["fingerprint"]},
        facts={
            "hardware": machine["hardware"],
            "matmul_flops_per_second": machine["rates"],
            "ran besides": arguments.besides,
            "quick": arguments.quick,
            "corpora": data["corpora"],
            "timings": {result.job.name: result.timings() for result in results},
            "ratios": {result.job.name: result.ratios() for result in results},
            "agreement": {result.job.name: result.agreement for result in results if result.agreement},
            **alone,
        },
        miniature="miniature" in data["name"],
        command=command_line(MODULE),
    )


def prepare(arguments: BenchArguments, needs: set[Needs], scratch: Path) -> Setting:
    """Return the corpora, and the models that jobs need; a model is made once and kept."""
    from benchmarks import materials
    from common.models.loading import local_folder
    from common.runtime.project import miniature_corpora

    own = miniature_corpora()
    sbic, snli = (arguments.sbic_dir or own / "SBIC.v2").resolve(), (arguments.snli_dir or own / "snli_1.0").resolve()
    made: dict[str, Any] = {}
    if needs & {"llama", "adapters"}:
        made["llama"] = str(local_folder(arguments.llama).resolve())
    if "adapters" in needs:
        made["adapters"] = materials.adapters(made["llama"], sbic)
    if "encoder" in needs or ("classifier" in needs and arguments.classifier is None):
        made["encoder"] = str(local_folder(arguments.encoder).resolve())
    if "classifier" in needs:
        trained = arguments.classifier and str(arguments.classifier.resolve())
        made["classifier"] = trained or materials.classifier(made["encoder"], snli)
    return Setting(sbic_dir=str(sbic), snli_dir=str(snli), scratch=str(scratch), **made)


def run_job(job: Job, setting: Setting, arguments: BenchArguments) -> JobResult:
    """Load every side of a job, time them in turn, and compare their answers."""
    sides = job.sides(bf16=hardware.cpu_has_bf16())
    items = {name: tool.quick if arguments.quick else tool.items for name, (tool, _) in sides.items()}
    sides = {name: side for name, side in sides.items() if items[name]}
    setting = dataclasses.replace(setting, most=max(items.values()))
    with contextlib.ExitStack() as ends:
        workers = {}
        for name, (tool, precision) in sides.items():
            own = dataclasses.replace(setting, precision=precision)
            workers[name] = SideProcess(name, f"benchmarks.{tool.load}", own)
            ends.callback(workers[name].end)
            workers[name].loaded()  # one after another: threads of several that load at once wait for each other
        ask = {name: partial(worker.measure, items[name]) for name, worker in workers.items()}
        rounds, agreed = [], {}
        for each in alternate(ask, arguments.rounds or (job.quick if arguments.quick else job.rounds)):
            rounds.append(each)
            agreed = agreed if len(rounds) > 1 else agreement(job.name, each)
            log(f"{job.name}, {job.unit}/s: " + ", ".join(f"{name} {each[name].rate:,.1f}" for name in sides))
    return JobResult(job, rounds, agreed)


def _data(arguments: BenchArguments, setting: Setting) -> dict[str, Any]:
    from benchmarks.materials import SBIC, SNLI, digest
    from common.tables.report import fingerprint

    sbic = {"name": "SBIC v2" if arguments.sbic_dir else "miniature", "fingerprint": digest(setting.sbic_dir, SBIC)}
    snli = {"name": "SNLI 1.0" if arguments.snli_dir else "miniature", "fingerprint": digest(setting.snli_dir, SNLI)}
    name = " and ".join(dict.fromkeys((sbic["name"], snli["name"])))
    return {"name": name, "fingerprint": fingerprint((sbic, snli)), "corpora": {"SBIC": sbic, "SNLI": snli}}


if __name__ == "__main__":
    run(main)
