"""Full fine-tuning on SNLI.

accelerate launch --config_file accelerate_config.yaml -m snli_roberta.train_full --config snli_roberta/recipes/full.yaml
"""

from __future__ import annotations

from common.cli.arguments import parse
from common.cli.console import log, quiet_libraries
from common.cli.errors import UserError, run
from snli_roberta.training.arguments import TrainArguments

METHOD = "full"


def main() -> None:
    arguments = parse(
        TrainArguments,
        prog="python -m snli_roberta.train_full",
        examples="  python -m snli_roberta.train_full --config snli_roberta/recipes/miniature_full.yaml",
    )
    if arguments.method != METHOD:
        raise UserError(f"the recipe is for {arguments.method}", key="method", expected=METHOD)
    quiet_libraries()  # before other imports of these libraries
    from snli_roberta.training.run import estimate, train

    if arguments.estimate_only:
        log(str(estimate(arguments)), always=True)
    else:
        train(arguments)


if __name__ == "__main__":
    run(main, several=True)
