"""One run of a study, for a process of its own: importing this module is what takes such a process seconds."""

from __future__ import annotations

from common.cli.console import quiet_libraries
from snli_roberta.training.arguments import TrainArguments

quiet_libraries()  # before the first of them is imported

from common.training.time_estimate import TimeEstimate  # noqa: E402
from snli_roberta.training import run as training  # noqa: E402


def train(arguments: TrainArguments) -> None:
    """See :func:`snli_roberta.training.run.train`."""
    training.train(arguments)


def estimate(arguments: TrainArguments) -> TimeEstimate:
    """See :func:`snli_roberta.training.run.estimate`."""
    return training.estimate(arguments)
