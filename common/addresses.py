"""Where this project lives: the one place that names it on GitHub and on the Hub."""

from __future__ import annotations

PROJECT = "finetuning-projects/annotate-and-compare"  # owner/repository; the owner is the Hub's namespace too
NAMESPACE, _, NAME = PROJECT.partition("/")
SOURCE = f"https://github.com/{PROJECT}"


def colab(notebook: str) -> str:
    """The address that opens a notebook of the repository, given by its path, in Colab."""
    return f"https://colab.research.google.com/github/{PROJECT}/blob/main/{notebook}"
