"""What a child process that trains needs of the libraries; importing this module is what takes the process seconds."""

from common.cli.console import quiet_libraries

quiet_libraries()  # before other imports of these libraries

from common.training import classification  # noqa: E402

__all__ = ["classification"]
