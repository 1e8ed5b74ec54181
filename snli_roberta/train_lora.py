"""LoRA on SNLI: adapters on all linear layers of the encoder, and the classifier.

accelerate launch --config_file accelerate_config.yaml -m snli_roberta.train_lora --config snli_roberta/recipes/lora.yaml
"""

from __future__ import annotations

from common.cli.arguments import parse
from common.cli.console import quiet_libraries
from common.cli.errors import UserError, run
from snli_roberta.training.arguments import TrainArguments

METHOD = "lora"


def main() -> None:
    arguments = parse(
        TrainArguments,
        prog="python -m snli_roberta.train_lora",
        examples="  python -m snli_roberta.train_lora --config snli_roberta/recipes/miniature_lora.yaml",
    )
    if arguments.method != METHOD:
        raise UserError(f"the recipe is for {arguments.method}", key="method", expected=METHOD)
    quiet_libraries()  # before the first of them is imported
    from snli_roberta.training.run import train

    train(arguments)


if __name__ == "__main__":
    run(main, several=True)
