"""Full fine-tuning on SNLI.

accelerate launch --config_file accelerate_config.yaml -m snli_roberta.train_full --config snli_roberta/recipes/full.yaml
"""

from __future__ import annotations

from common.arguments import parse
from common.errors import UserError, run
from common.stages import quiet_libraries
from snli_roberta.arguments import TrainArguments

METHOD = "full"


def main() -> None:
    arguments = parse(
        TrainArguments,
        prog="python -m snli_roberta.train_full",
        examples="  python -m snli_roberta.train_full --config snli_roberta/recipes/miniature_full.yaml",
    )
    if arguments.method != METHOD:
        raise UserError(f"the recipe is for {arguments.method}", key="method", expected=METHOD)
    quiet_libraries()  # before the first of them is imported
    from snli_roberta.training import train

    train(arguments)


if __name__ == "__main__":
    run(main, several=True)
