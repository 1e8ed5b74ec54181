"""One run of a study, for a process of its own: importing this module is what takes such a process seconds."""

from __future__ import annotations

from common.stages import quiet_libraries
from snli_roberta.arguments import TrainArguments

quiet_libraries()  # before the first of them is imported

from common.training_estimate import Estimate  # noqa: E402
from snli_roberta import training  # noqa: E402


def train(arguments: TrainArguments) -> None:
    """See :func:`snli_roberta.training.train`."""
    training.train(arguments)


def estimate(arguments: TrainArguments) -> Estimate:
    """See :func:`snli_roberta.training.estimate`."""
    return training.estimate(arguments)
