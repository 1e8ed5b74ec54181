"""Train an adapter for offensiveYN: could the post be considered offensive to anyone?

accelerate launch --config_file accelerate_config.yaml -m sbic_llama.train_offensive_yn \\
    --config sbic_llama/recipes/llama2_7b_t4.yaml
"""

from __future__ import annotations

from common.cli.arguments import parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import run
from sbic_llama.training.arguments import TrainArguments

FEATURE = "offensiveYN"


def main() -> None:
    arguments = parse(
        TrainArguments,
        prog="python -m sbic_llama.train_offensive_yn",
        examples="  python -m sbic_llama.train_offensive_yn --config sbic_llama/recipes/miniature.yaml",
    )
    quiet_libraries()  # before the first import of them
    from sbic_llama.training.run import dump_dataset, estimate, train

    if arguments.dump_dataset:
        dump_dataset(arguments, FEATURE)
    elif arguments.estimate_only:
        log(str(estimate(arguments, FEATURE)), always=True)
    else:
        train(arguments, FEATURE)


if __name__ == "__main__":
    run(main, several=True)
