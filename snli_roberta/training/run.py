"""Train a classifier of pairs with either method: they share data, seed, schedule and evaluation, and differ in the adapter."""

from __future__ import annotations

from typing import Any

from common.cli.console import log
from common.cli.errors import UserError
from common.cli.options import METHODS
from common.hub.upload import check_publishing, publish_if_asked
from common.models.loading import base_identity, base_path, commit_of
from common.results.scoring import class_counts
from common.runtime import hardware
from common.runtime.run_folder import locked
from common.training import classification, time_estimate
from common.training.classification import Labeled, TrainingData
from common.training.run import identity, prepare, with_lasting_base
from snli_roberta.data.corpus import LABELS, SAMPLING, Pair, pairs_fingerprint, training_sample
from snli_roberta.training.arguments import TrainArguments


def train(arguments: TrainArguments) -> None:
    """Train, keep the checkpoint with the best validation accuracy, prove that it loads, and publish it if requested.

    Raises:
        UserError: Bad data, an unknown model, or an ``output_dir`` that holds another run.
        Interrupted: A signal stopped the run; the same command continues it.
    """
    output_dir = arguments.output_dir
    arguments = with_lasting_base(arguments, output_dir)
    with locked(output_dir):
        context = prepare(arguments, arguments.model_name_or_path)
        classification.train(arguments, context, load_data(arguments))
    evaluate = ["snli_roberta.evaluate", "--model", str(output_dir), "--title", METHODS[arguments.method]]
    evaluate += ["--output_dir", str(output_dir / "records")]
    publish_if_asked(arguments, output_dir, evaluate, arguments.words())


def estimate(arguments: TrainArguments) -> time_estimate.TimeEstimate:
    """Estimate how long the run would take here from a few of its steps; nothing is kept."""
    return classification.estimate(arguments, load_data)


def load_data(arguments: TrainArguments) -> TrainingData:
    """Load train and validation pairs, and check everything that can be refused before training."""
    if hardware.shards():
        raise UserError("FSDP is for 4-bit bases; an encoder needs no shards", fix="use accelerate_config.yaml")
    loaded, dev = arguments.load("train", "dev")
    for line in (*loaded.report.lines(), *dev.report.lines()):
        log(line)
    pairs = training_sample(loaded.pairs, **{key: getattr(arguments, key) for key in SAMPLING})
    # The base's main branch may move before a stopped run continues, so the commit is part of the run's identity.
    revision = commit_of(base_path(arguments.model_name_or_path), arguments.model_revision)
    base = revision or base_identity(arguments.model_name_or_path, None)
    about = what_it_is(arguments, revision)
    check_publishing(arguments, about)
    used = labeled(pairs)
    return TrainingData(
        names=LABELS,
        items="pairs",
        train=used,
        validation=labeled(dev.pairs),
        metric="accuracy",
        revision=revision,
        identity=identity(arguments, pairs_fingerprint(pairs)) | {"base_commit": base},
        about=about,
        facts={
            "loaded": class_counts(loaded.labels, LABELS),
            "used": class_counts(used.labels, LABELS),
            "report": loaded.report.as_dict(),
        },
    )


def labeled(pairs: list[Pair]) -> Labeled:
    return Labeled([pair.texts for pair in pairs], [pair.label for pair in pairs])


def what_it_is(arguments: TrainArguments, revision: str | None) -> dict[str, Any]:
    """Return the part of a record's facts that says which model this is."""
    kind = "full" if arguments.method == "full" else "adapter"
    return {"project": "snli_roberta", "kind": kind, "base": {"name": arguments.model_name_or_path, "commit": revision}}
