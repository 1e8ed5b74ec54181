"""A training of the study in a child process; importing this module is what takes the process seconds."""

from common.cli.console import quiet_libraries

quiet_libraries()  # before other imports of these libraries

from snli_roberta.training.run import estimate, train  # noqa: E402

__all__ = ["estimate", "train"]
