"""The prompt of an adapter as other programs know it: a chat template, a Modelfile, and a page that explains them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import PreTrainedTokenizerBase

from common.models.prompt import answer_ids, bos_ids, frame_of
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import Feature
from sbic_llama.model.answering import MAX_NEW_TOKENS

if TYPE_CHECKING:
    from common.models.gguf_tokenizer import Vocabulary

MODELFILE = "Modelfile"


@dataclass(frozen=True)
class ExportedPrompt:
    """The text around a post, and how long things are in tokens."""

    head: str
    tail: str
    end: str  # token that ends an answer
    end_id: int
    control_first: bool  # whether a control token of the template comes first
    chat: bool  # whether it is that of a chat template, which has its control tokens in its text
    bos: int | None  # token in front of the prompt, if the tokenizer puts one there
    answer: int  # tokens of the longest answer, with its end
    context: int  # tokens of the longest prompt and its answer

    def in_gguf(self, words: Vocabulary) -> ExportedPrompt:
        """Return the same where control tokens have the names of a GGUF file."""
        space = " " if words.explicit_space and not self.control_first else ""
        known = re.compile("|".join(map(re.escape, sorted(words.renamed, key=len, reverse=True))) or r"(?!)")

        def rename(text: str) -> str:
            return known.sub(lambda match: words.renamed[match[0]], text)

        return replace(self, head=space + rename(self.head), tail=rename(self.tail), end=rename(self.end))

    def chat_template(self, bos: str = "") -> str:
        """Return a Jinja template that puts the last message into the prompt, behind ``bos``."""
        head, tail = (json.dumps(text, ensure_ascii=False) for text in (bos + self.head, self.tail))
        return f"{{{{ {head} }}}}{{{{ messages[-1]['content'] }}}}{{{{ {tail} }}}}"

    def modelfile(self, source: str) -> str:
        """Return Ollama's description of the model in ``source``, a file or folder beside it."""
        return "\n".join(
            (
                f"FROM {source}",
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


def exported_prompt(tokenizer: PreTrainedTokenizerBase, feature: Feature, max_post_tokens: int) -> ExportedPrompt:
    """Return the prompt of an adapter."""
    frame = frame_of(tokenizer, feature.template, feature.instruction)
    bos = bos_ids(tokenizer) if feature.template.name == "study" else []
    branches = answer_ids(tokenizer, feature.branches, feature.template) if feature.branches else []
    answer = max(map(len, branches), default=MAX_NEW_TOKENS)
    around = encode(tokenizer, feature, [], max_post_tokens=max_post_tokens).around
    context = around + max_post_tokens + answer
    return ExportedPrompt(
        head=feature.opening,
        tail=feature.template.tail,
        end=str(tokenizer.convert_ids_to_tokens(frame.end)),
        end_id=frame.end,
        control_first=bool(frame.before) and not bos,
        chat=feature.template.name == "chat",
        bos=bos[0] if bos else None,
        answer=answer,
        context=context,
    )


def write_page(folder: Path, template: str, **values: object) -> None:
    """Render a README from a template of this folder."""
    import jinja2

    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    settings = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    page = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, **settings).get_template(template)
    (folder / "README.md").write_text(page.render(**values), encoding="utf-8")
