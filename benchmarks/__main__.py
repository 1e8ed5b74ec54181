"""Ours against the tools that a user would pick instead, both in one run: ``python -m benchmarks``."""

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
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks import jobs, size, start, width
from benchmarks.alternating import Worker, alternate, finished, python
from benchmarks.jobs import JOBS, Job, Name
from benchmarks.setting import Measured, Setting, environment
from benchmarks.table import COLUMNS, Ran, agreement, all_ratios, compared, summary, timings
from common.cli.arguments import option, parse
from common.cli.console import log, stage
from common.cli.errors import UserError, run
from common.results.finding import Finding, Listing
from common.results.rendering import lines
from common.results.scoring import command_line
from common.runtime import hardware

MODULE = "benchmarks"
NAMES: tuple[Name, ...] = typing.get_args(Name)
LIMITS = (
    "How either does on a GPU, or with a model of billions of parameters: these are small ones on the cores of one CPU, with "
    "weights that were hardly trained. What else ran on the machine counts too. A tool is run in both precisions where the CPU has "
    "them; its users have to ask for bf16, except of TRL's command. Each training validates once and saves once. Same is the share "
    "of items with the same answer, in the first round; of a training their mean loss by ours."
)


@dataclass(kw_only=True)
class BenchArguments:
    """Times the product and the tools that a user would pick instead, in turn, on the CPU: the same model, the same rows."""

    quick: bool = option(False, "fewer rows and rounds: ten minutes on 2 cores, once the models are made")
    rounds: int | None = option(None, "times that each side of a job is timed (default: the job's own)", minimum=1)
    jobs: tuple[Name, ...] = option(NAMES, "jobs to run")
    sbic_dir: Path | None = option(None, "folder of SBIC.v2.{trn,dev,tst}.csv; by default the miniature's")
    snli_dir: Path | None = option(None, "folder of snli_1.0_{train,dev,test}.jsonl; by default the miniature's")
    llama_tokenizer: Path | None = option(None, "folder of a Llama's tokenizer; by default the shipped tiny one's")
    encoder_tokenizer: Path | None = option(None, "folder of a RoBERTa's tokenizer; by default the shipped tiny one's")
    besides: str = option("nothing else", "what else ran on the machine, for the record")
    output: Path | None = option(None, "JSON file for what was found (default: results/bench-cpu-N-cores.json of a whole run "
                                 "on real corpora, output/bench.json of any other)")  # fmt: skip

    def __post_init__(self) -> None:
        given = {
            "sbic_dir": (self.sbic_dir, "SBIC.v2.trn.csv"),
            "snli_dir": (self.snli_dir, "snli_1.0_train.jsonl"),
            "llama_tokenizer": (self.llama_tokenizer, ""),
            "encoder_tokenizer": (self.encoder_tokenizer, ""),
        }
        for key, (folder, file) in given.items():
            if folder is not None and not (folder / file).exists():
                raise UserError(f"{folder / file} is not there", key=key, fix="check the path")
        if "SBIC classification" in self.jobs and not has_harness():
            raise UserError(
                "the evaluation harness is missing", fix="pip install -r requirements-bench.txt, or run make bench"
            )


def has_harness() -> bool:
    """Whether lm-evaluation-harness is installed, which requirements-bench.txt names."""
    return importlib.util.find_spec("lm_eval") is not None


def main() -> None:
    arguments = parse(
        BenchArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --quick\n"
        f'  python -m {MODULE} --jobs "SNLI prediction" --rounds 3 --snli_dir path/to/snli_1.0 --output bench.json',
    )
    signal.signal(signal.SIGTERM, _leave)
    cores = hardware.cpu_threads()
    output = arguments.output or place(arguments, cores)
    os.environ["OMP_NUM_THREADS"] = str(cores)  # before this process's own torch
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        found = bench(arguments, Path(scratch), cores)
    print("\n".join(lines(found)))
    found.write(output)
    log(f"written: {output}")


def place(arguments: BenchArguments, cores: int) -> Path:
    """Where what was found goes by itself: only a whole run on real corpora is a record to keep."""
    parts = arguments.quick or arguments.rounds or arguments.jobs != NAMES
    own = None in (arguments.sbic_dir, arguments.snli_dir, arguments.llama_tokenizer, arguments.encoder_tokenizer)
    return Path("output/bench.json") if parts or own else Path("results") / f"bench-cpu-{cores}-cores.json"


def bench(arguments: BenchArguments, scratch: Path, cores: int) -> Finding:
    """Runs the chosen jobs.

    Raises:
        UserError: A side failed, or does not do the job.
    """
    machine = json.loads(finished("matrix products", python("benchmarks.matmul"), environment(cores)).splitlines()[-1])
    rates = machine["rates"]
    log("matrix products: " + ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in rates.items()))
    chosen = [job for job in JOBS if job.name in arguments.jobs]
    setting = prepare(arguments, {job.needs for job in chosen}, scratch, cores)
    ran = []
    for job in chosen:
        with stage(job.name):
            ran.append(run_job(job, setting, arguments, cores))
    parts, more = [], {}
    if ran:
        table = [row for one in ran for row in compared(one, rates)]
        parts.append(Listing("Ours against theirs, medians", COLUMNS, table))
    if "start" in arguments.jobs:
        rounds = arguments.rounds or (1 if arguments.quick else 3)
        more["start"] = start.measure(start.scratch_of(str(scratch)), cores, rounds)
        parts.append(Listing("Until a command answers", start.COLUMNS, start.rows(more["start"])))
    if "size" in arguments.jobs:
        more["size"] = size.measure(scratch, cores, size.QUICK_LARGE if arguments.quick else size.LARGE)
        parts.append(Listing("A row's cost in a small file and in a large one", size.COLUMNS, size.rows(more["size"])))
    if "width" in arguments.jobs:
        rounds = arguments.rounds or (1 if arguments.quick else 3)
        found = width.measure(setting.snli_dir, tokenizers(arguments)[1], cores, rounds, quick=arguments.quick)
        more["width"] = found
        parts.append(Listing("Full fine-tuning by width of the model and precision", width.COLUMNS, width.rows(found)))
    data = _data(arguments, setting)
    return Finding(
        name="bench",
        title="How fast it is beside the tools that a user would pick instead",
        task="benchmarks",
        model=f"CPU, {cores} cores",
        summary=summary(parts),
        parts=parts,
        limits=LIMITS,
        data={"name": data["name"], "split": "train and test", "fingerprint": data["fingerprint"]},
        facts={
            "hardware": machine["hardware"],
            "matmul_flops_per_second": rates,
            "ran besides": arguments.besides,
            "quick": arguments.quick,
            "corpora": data["corpora"],
            "timings": {one.job.name: timings(one) for one in ran},
            "ratios": {one.job.name: all_ratios(one) for one in ran},
            "agreement": {one.job.name: one.agreement for one in ran if one.agreement},
            **more,
        },
        miniature="miniature" in data["name"],
        command=command_line(MODULE),
    )


def prepare(arguments: BenchArguments, needs: set[jobs.Needs], scratch: Path, cores: int) -> Setting:
    """The corpora and the models that jobs need; a model is made once and kept."""
    from benchmarks import encoder, llama
    from common.runtime.child_process import call
    from common.runtime.project import miniature_corpora

    own = miniature_corpora()
    sbic, snli = (arguments.sbic_dir or own / "SBIC.v2").resolve(), (arguments.snli_dir or own / "snli_1.0").resolve()
    words, pieces = tokenizers(arguments)
    made: dict[str, Any] = {}
    if needs & {"llama", "adapters"}:
        made["llama"] = str(call(llama.made, (sbic, words), preload="common.cli.console"))
    if "adapters" in needs:
        made["adapters"] = llama.adapters(Path(made["llama"]), sbic, cores)
    if needs & {"encoder", "classifier"}:
        made["encoder"] = str(call(encoder.base, pieces, preload="common.cli.console"))
    if "classifier" in needs:
        made["classifier"] = str(encoder.classifier(Path(made["encoder"]), snli, cores))
    return Setting(sbic_dir=str(sbic), snli_dir=str(snli), scratch=str(scratch), **made)


def tokenizers(arguments: BenchArguments) -> tuple[str, str]:
    """The folders of a Llama's and of an encoder's tokenizer."""
    from common.runtime.project import MINIATURE_MODELS as MODELS

    given = (arguments.llama_tokenizer or MODELS / "tiny_llama", arguments.encoder_tokenizer or MODELS / "tiny_roberta")
    return str(given[0].resolve()), str(given[1].resolve())


def run_job(job: Job, setting: Setting, arguments: BenchArguments, cores: int) -> Ran:
    """Loads every side of a job, times them in turn, and compares their answers."""
    sides = jobs.sides(job, bf16=hardware.cpu_has_bf16())
    items = {name: tool.quick if arguments.quick else tool.items for name, (tool, _) in sides.items()}
    setting = dataclasses.replace(setting, most=max(items.values()))
    with contextlib.ExitStack() as ends:
        workers = {}
        for name, (tool, precision) in sides.items():
            given = json.dumps(dataclasses.asdict(dataclasses.replace(setting, precision=precision)))
            worker = Worker(name, python("benchmarks.worker", tool.load, given), environment(cores))
            ends.callback(worker.end)
            workers[name] = worker
        for worker in workers.values():  # they load side by side
            worker.receive()
        ask = {name: _asks(worker, items[name]) for name, worker in workers.items()}
        rounds, agreed = [], {}
        for each in alternate(ask, arguments.rounds or (job.quick if arguments.quick else job.rounds)):
            rounds.append(each)
            agreed = agreed if len(rounds) > 1 else agreement(job.name, each)
            log(f"{job.name}, {job.unit}/s: " + ", ".join(f"{name} {each[name].rate:,.1f}" for name in sides))
    return Ran(job, rounds, agreed)


def _asks(worker: Worker, items: int) -> typing.Callable[[], Measured]:
    return lambda: Measured(**worker.ask({"items": items}))


def _data(arguments: BenchArguments, setting: Setting) -> dict[str, Any]:
    from benchmarks.cached import digest
    from common.tables.report import fingerprint

    corpora = {
        "SBIC": {
            "name": "miniature" if arguments.sbic_dir is None else "SBIC v2",
            "fingerprint": digest(list(Path(setting.sbic_dir).glob("SBIC.v2.*.csv"))),
        },
        "SNLI": {
            "name": "miniature" if arguments.snli_dir is None else "SNLI 1.0",
            "fingerprint": digest(list(Path(setting.snli_dir).glob("snli_1.0_*.jsonl"))),
        },
    }
    names = list(dict.fromkeys(one["name"] for one in corpora.values()))
    return {"name": " and ".join(names), "fingerprint": fingerprint(corpora.values()), "corpora": corpora}


def _leave(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    run(main)
