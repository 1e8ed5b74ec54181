"""LoRA on SNLI: adapters on the linear layers of the encoder, and a new classification head.

accelerate launch --config_file accelerate_config.yaml -m snli_roberta.train_lora --config snli_roberta/recipes/lora.yaml
"""

from __future__ import annotations

from common.cli.console import log, quiet_libraries
from common.cli.errors import run
from snli_roberta.training.arguments import train_arguments


def main() -> None:
    arguments = train_arguments("lora")
    quiet_libraries()  # before other imports of these libraries
    from snli_roberta.training.run import estimate, train

    if arguments.estimate_only:
        log(str(estimate(arguments)), always=True)
    else:
        train(arguments)


if __name__ == "__main__":
    run(main, several=True)
