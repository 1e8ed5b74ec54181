"""What to export, as which kind of model, and on which texts to compare the answers."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from common.cli.arguments import option
from common.cli.errors import UserError
from common.models.loading import check_place
from common.runtime.hardware import Precision
from sbic_llama.data.corpus import clean, labeled
from sbic_llama.data.features import Feature
from sbic_llama.data.texts import text_columns
from sbic_llama.model.description import AnnotatorFile
from sbic_llama.training.arguments import CorpusArguments

INSTALL = "pip install -r requirements-export.txt"
MERGED = ("fp32", "fp16", "bf16")


@dataclass(kw_only=True)
class ExportArguments(CorpusArguments):
    """Merges an adapter into its base, for programs without PEFT, and compares its answers to validation posts."""

    adapters: tuple[str, ...] = option(
        (), "folder or Hub id of the adapter, user/name@v1 for a revision", positional=True
    )
    revision: str | None = option(None, "its branch, tag or commit on the Hub")
    to: Literal["merged", "gguf"] = option(
        help="merged: a folder for transformers, vLLM and TGI; gguf: a file for llama.cpp and Ollama"
    )
    output_dir: Path = option(help="new folder for the exported model")
    dtype: Literal["fp32", "fp16", "bf16", "q8_0", "q4_1"] = option(
        "fp16", "type of the weights; q8_0 and q4_1, of 8 and 4 bits, in GGUF only"
    )
    texts: Path | None = option(None, "table of texts to compare answers on, instead of the validation posts")
    text_column: str | None = option(None, "its column of texts (default: the codebook's, otherwise post)")
    posts: int = option(500, "texts to compare at most; 0 for all", minimum=0)
    max_flips: float = option(0.01, "largest share of texts whose label may change", minimum=0, maximum=1)
    precision: Precision = option("fp32", "in which to run the merged model; the adapter is run in fp32")
    check: bool = option(False, f"gguf: answer the texts with llama.cpp, too ({INSTALL})")
    batch_size: int = option(32, "posts per forward pass", minimum=1)

    def __post_init__(self) -> None:
        if len(self.adapters) != 1:
            raise UserError(f"{len(self.adapters)} adapters were given", expected="a folder or Hub id of one")
        CorpusArguments.__post_init__(self)
        check_place(self.adapter, self.revision)
        if self.to == "merged" and self.dtype not in MERGED:
            raise UserError(f"{self.dtype} is a type of GGUF", key="--dtype", expected=f"one of {', '.join(MERGED)}")
        if self.to == "merged" and self.check:
            raise UserError("llama.cpp reads GGUF files", key="--check", fix="remove it, or use --to gguf")
        if self.text_column is not None and self.texts is None:
            raise UserError("it has no effect without --texts", key="--text_column", fix="add --texts")
        if self.texts is not None and not (self.data is None and self.on_miniature):
            raise UserError("a corpus was given, too", key="--texts", fix="remove one of them")
        if self.output_dir.name in ("", ".."):
            raise UserError("not a name", file=self.output_dir, expected="that of a new folder")
        if self.output_dir.exists() and (not self.output_dir.is_dir() or any(self.output_dir.iterdir())):
            raise UserError("the folder is not empty", file=self.output_dir, fix="choose another --output_dir")
        for name in ("gguf",) * (self.to == "gguf") + ("xllamacpp",) * self.check:
            if find_spec(name) is None:
                raise UserError(f"{name} is not installed", key=f"--{'check' if self.check else 'to'}", fix=INSTALL)

    @property
    def adapter(self) -> str:
        return self.adapters[0]

    def chosen(self, description: AnnotatorFile, feature: Feature) -> list[str]:
        """Return the cleaned texts to compare answers on, evenly spaced over the file or the validation split."""
        if self.texts is not None:
            texts = self._texts(self.texts, feature)
        else:
            self.require_training_corpus(description.corpus, self.adapter)
            split = self.load(description.codebook)["dev"]
            texts = [post.text for post in labeled(split, feature.label_of)]
        distinct = list(dict.fromkeys(texts))
        most = self.posts or len(distinct)
        return distinct[:: -(-len(distinct) // most)]

    def _texts(self, path: Path, feature: Feature) -> list[str]:
        from common.tables.reading import read_rows

        columns = text_columns([feature.texts], self.text_column)
        rows = (row.values for row in read_rows(path, columns.columns))
        texts = [clean(columns.read(values)) for values in rows if columns.problem(values) is None]
        if not texts:
            raise UserError("no texts", file=path, column=columns.columns[0], expected="at least one")
        return texts

    @property
    def source(self) -> dict[str, str]:
        """Return where the texts are from, for a record."""
        if self.texts is not None:
            return {"name": self.texts.name, "split": "all"}
        return {"name": self.corpus_name, "split": "validation"}
