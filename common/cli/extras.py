"""Packages that only some commands need: extras of the installation, asked for before the work that needs them."""

from __future__ import annotations

import importlib.util

from common.cli.errors import UserError

# Extra → what it is for, and its packages by the name under which they are imported.
EXTRAS = {
    "plots": ("pictures", {"matplotlib": "matplotlib"}),
    "tables": (
        "files of spreadsheets and survey programs",
        {"python_calamine": "python-calamine", "xlsxwriter": "XlsxWriter", "pyreadstat": "pyreadstat"},
    ),
    "app": ("pages", {"gradio": "gradio"}),
    "texts": ("scores of lists of groups", {"sacrebleu": "sacrebleu", "rouge_score": "rouge-score"}),
}


def require(*extras: str) -> None:
    """Check that the packages of some extras are installed, without importing them.

    Raises:
        UserError: One is not, with the command that installs it.
    """
    for extra in extras:
        purpose, packages = EXTRAS[extra]
        missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
        if missing:
            problem = f"{purpose} need {', '.join(missing)}"
            raise UserError(problem, fix=f"run pip install {' '.join(missing)}")
