"""The prompt of an adapter as other programs know it: a chat template, a Modelfile, and a page that explains them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from common.models.prompt import answer_ids, bos_ids, frame_of
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import Feature
from sbic_llama.model.answering import MAX_NEW_TOKENS
from sbic_llama.model.description import AnnotatorFile

MODELFILE = "Modelfile"


@dataclass(frozen=True)
class ExportedPrompt:
    """The text around a post, and how long things are in tokens."""

    head: str
    tail: str
    end: str  # token that ends an answer
    end_id: int
    bos: int | None  # token in front of the prompt, if the tokenizer puts one there
    answer: int  # tokens of the longest answer, with its end
    context: int  # tokens of the longest prompt and its answer

    def renamed(self, names: Mapping[str, str]) -> ExportedPrompt:
        """Return the same where control tokens have other names."""
        if not names:
            return self
        known = re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))))

        def rename(text: str) -> str:
            return known.sub(lambda match: names[match[0]], text)

        return replace(self, head=rename(self.head), tail=rename(self.tail), end=rename(self.end))

    def chat_template(self, bos: str = "") -> str:
        """Return a Jinja template that puts the last message into the prompt, behind ``bos``."""
        head, tail = (json.dumps(text, ensure_ascii=False) for text in (bos + self.head, self.tail))
        return f"{{{{ {head} }}}}{{{{ messages[-1]['content'] }}}}{{{{ {tail} }}}}"

    def modelfile(self, source: str) -> str:
        """Return Ollama's description of the model in the file or folder ``source``."""
        return "\n".join(
            (
                f"FROM ./{source}",
                f'TEMPLATE """{_in_go(self.head)}{{{{ .Prompt }}}}{_in_go(self.tail)}"""',
                f"PARAMETER stop {json.dumps(self.end, ensure_ascii=False)}",
                "PARAMETER temperature 0",
                f"PARAMETER num_predict {self.answer}",
                f"PARAMETER num_ctx {self.context}",
                "",
            )
        )


def _in_go(text: str) -> str:
    """Return a text for a Go template in triple quotes, where braces and three quotes would mean something."""
    return re.sub(r'\{\{|"""', lambda match: f"{{{{ {json.dumps(match[0])} }}}}", text)


def exported_prompt(tokenizer: PreTrainedTokenizerBase, feature: Feature, description: AnnotatorFile) -> ExportedPrompt:
    """Return the prompt of an adapter."""
    end = frame_of(tokenizer, feature.template, feature.instruction).end
    bos = bos_ids(tokenizer) if feature.template.name == "study" else []
    branches = answer_ids(tokenizer, feature.branches, feature.template) if feature.branches else []
    answer = max(map(len, branches), default=MAX_NEW_TOKENS)
    around = encode(tokenizer, feature, [], max_post_tokens=description.max_post_tokens).around
    context = around + description.max_post_tokens + answer
    name = str(tokenizer.convert_ids_to_tokens(end))
    return ExportedPrompt(feature.opening, feature.template.tail, name, end, bos[0] if bos else None, answer, context)


def write_page(folder: Path, template: str, **values: object) -> None:
    """Render a README from a template of this folder."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    settings = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    page = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **settings).get_template(template)
    (folder / "README.md").write_text(page.render(**values), encoding="utf-8")
