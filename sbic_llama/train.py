"""Train an adapter for any feature that :mod:`sbic_llama.data.features` declares, or for a codebook of your own.

accelerate launch --config_file accelerate_config.yaml -m sbic_llama.train --config sbic_llama/recipes/intent_t4.yaml
"""

from __future__ import annotations

import dataclasses

from common.cli.arguments import parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import run
from sbic_llama.training.arguments import FeatureArguments, TrainArguments


def main() -> None:
    given = parse(
        FeatureArguments,
        prog="python -m sbic_llama.train",
        examples="  python -m sbic_llama.train --feature intentYN --config sbic_llama/recipes/miniature.yaml\n"
        "  python -m sbic_llama.train --codebook codebook.yaml --data table.csv --config sbic_llama/recipes/miniature.yaml",
    )
    arguments = TrainArguments(
        **{field.name: getattr(given, field.name) for field in dataclasses.fields(TrainArguments)}
    )
    quiet_libraries()  # before the first import of them
    from sbic_llama.training.run import dump_dataset, estimate, train

    name = given.feature or ""  # a codebook names its own
    if arguments.dump_dataset:
        dump_dataset(arguments, name)
    elif arguments.estimate_only:
        log(str(estimate(arguments, name)), always=True)
    else:
        train(arguments, name)


if __name__ == "__main__":
    run(main, several=True)
