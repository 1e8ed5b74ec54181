"""An adapter for any feature that :mod:`sbic_llama.data.features` declares.

accelerate launch --config_file accelerate_config.yaml -m sbic_llama.train --config sbic_llama/recipes/intent_t4.yaml
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from common.cli.arguments import option, parse
from common.cli.console import quiet_libraries
from common.cli.errors import run
from sbic_llama.data.features import Name
from sbic_llama.training.arguments import TrainArguments

MODULE = "sbic_llama.train"


@dataclass(kw_only=True)
class FeatureArguments(TrainArguments):
    """Trains an adapter for a feature of SBIC on a 4-bit base model. The same command continues a stopped run."""

    feature: Name = option(help="the feature")


def main() -> None:
    arguments = parse(
        FeatureArguments,
        prog=f"python -m {MODULE}",
        examples=f"  python -m {MODULE} --feature intentYN --config sbic_llama/recipes/miniature.yaml",
    )
    quiet_libraries()  # before the first of them is imported
    from sbic_llama.training.run import train

    settings = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(TrainArguments)}
    train(TrainArguments(**settings), arguments.feature)


if __name__ == "__main__":
    run(main, several=True)
