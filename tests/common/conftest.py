"""Small models of both projects, trained for a few steps and evaluated, for tests that publish and load them."""

from __future__ import annotations

import csv
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.miniature.pretrain import MODELS
from common.models import retry
from tests.first_rows import cut_sbic, cut_snli
from tests.once import once
from tests.strict_hub import StrictHub

if TYPE_CHECKING:
    from sbic_llama.training.arguments import TrainArguments


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch) -> None:
    """Do not wait between retries."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)


@pytest.fixture(scope="session")
def few(miniature, tmp_path_factory) -> Path:
    """Return a folder of official files with a few of the miniature's posts and pairs: a small corpus of its own."""
    folder = tmp_path_factory.mktemp("few")
    cut_sbic(miniature / "SBIC.v2", folder, trn=500, dev=160, tst=160)
    cut_snli(miniature / "snli_1.0", folder, train=600, dev=90, test=120)
    return folder


@pytest.fixture(scope="session")
def runs(few, tmp_path_factory) -> dict[str, Path]:
    """Return kind → folder: SBIC adapters with labels and with lists of groups, SNLI models by both methods."""
    from sbic_llama import evaluate as sbic
    from sbic_llama.training.arguments import TrainArguments as SbicArguments
    from sbic_llama.training.run import train as train_sbic
    from snli_roberta import evaluate as snli
    from snli_roberta.training.arguments import TrainArguments as SnliArguments
    from snli_roberta.training.run import train as train_snli

    def make(folder: Path) -> None:
        steps = {"evaluations": 1, "logging_steps": 5, "data_dir": few}
        for name, count in {"offensiveYN": 20, "targetMinority": 60}.items():
            train_sbic(SbicArguments(output_dir=folder, learning_rate=2e-3, max_steps=count, **steps), name)
            sbic.score_adapter(
                sbic.EvaluateArguments(
                    adapter=str(folder / name), data_dir=few, output_dir=folder / "records", untouched_base=False
                )
            )
        for method in ("full", "lora"):
            train_snli(
                SnliArguments(output_dir=folder / method, method=method, learning_rate=1e-3, max_steps=20, **steps)
            )
        models = tuple(str(folder / method) for method in ("full", "lora"))
        snli.score(
            snli.EvaluateArguments(model=models, title=("full", "lora"), data_dir=few, output_dir=folder / "records")
        )

    # A copy, because tests evaluate and publish these models.
    folder = tmp_path_factory.mktemp("runs") / "models"
    shutil.copytree(once(tmp_path_factory, "models", make), folder)
    kinds = {"sbic_labels": "offensiveYN", "sbic_groups": "targetMinority", "snli_full": "full", "snli_adapter": "lora"}
    return {kind: folder / name for kind, name in kinds.items()}


@dataclass(frozen=True)
class Own:
    """An adapter of a codebook, trained and evaluated, with what it was made of."""

    folder: Path
    table: Path
    arguments: TrainArguments


# Its words would break a card, or the code on it, that took them for its own.
CODEBOOK = """\
name: stance
question: What does the *author* think, <b>of</b> [it](evil)?
instruction: "Decide what the author of {post} thinks.\\nRead all of it."
labels:
  Against: "dislikes it, as in ```no```\\_\\u2028and | {post1}"
  "In favor 👍": likes it
ordered: true
examples:
- {text: what a fine thing, label: In favor 👍}
columns: {label: stance, annotator: coder, group: author}
"""


@pytest.fixture(scope="session")
def own(tmp_path_factory) -> Own:
    """Return the adapter of a codebook, whose table has texts of more tokens than training reads."""
    from sbic_llama import evaluate
    from sbic_llama.training.arguments import TrainArguments
    from sbic_llama.training.run import train

    folder, draw = tmp_path_factory.mktemp("own"), random.Random(0)
    (folder / "codebook.yaml").write_text(CODEBOOK.replace("_", "N"), encoding="utf-8")
    with open(folder / "table.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "coder", "stance", "author"])
        for number in range(90):
            words = ["".join(draw.choices("abdegiklmnoprstu", k=5)) for _ in range(draw.randint(2, 9))]
            label = ("Against", "In favor 👍")[number % 2]
            for coder in ("ann", "bo"):
                writer.writerow(
                    [f"I {'hate' if number % 2 == 0 else 'love'} {' '.join(words)}", coder, label, f"u{number // 2}"]
                )
    arguments = TrainArguments(
        output_dir=folder / "adapters",
        codebook=folder / "codebook.yaml",
        data=folder / "table.csv",
        learning_rate=2e-3,
        max_steps=10,
        evaluations=1,
        max_post_tokens=20,
    )
    train(arguments, "")
    adapter = folder / "adapters" / "stance"
    evaluate.score_adapter(
        evaluate.EvaluateArguments(
            adapter=str(adapter), data=arguments.data, output_dir=folder / "records", untouched_base=False
        )
    )
    return Own(adapter, folder / "table.csv", arguments)


@pytest.fixture
def bases(hub) -> StrictHub:
    """Return the Hub with the miniature's base models."""
    for folder in MODELS.iterdir():
        hub.add_model(f"miniature/{folder.name}", folder)
    return hub
