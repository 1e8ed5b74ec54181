"""Templates of prompts, and the tokens of prompts and answers.

A prompt has the tokens of its whole text, which is what other programs send to a model. Tokens of pieces would differ:
many tokenizers join the end of a post and the line breaks behind it. Only the template's own control tokens divide it:
each run of text between two of them is tokenized as a whole, and a control token in that text is text.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from common.cli.console import log
from common.cli.errors import UserError, shown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\nInput:\n"
)
TAIL = "\n\n### Response:\n"
BEFORE, BETWEEN = HEAD.split("{}")
PLAIN: dict[str, bool] = {"add_special_tokens": False, "split_special_tokens": True}  # how a tokenizer reads mere text
# Some chat templates write today's date. Runs of different days, and a run that continues, need the same prompt.
DATE = {"%d": "01", "%-d": "1", "%b": "Jan", "%B": "January", "%m": "01", "%Y": "2026", "%y": "26"}
FIXED_DATE = (
    "".join(
        (
            "{% macro strftime_now(format) %}{{ format",
            *(f"|replace({each!r},{text!r})" for each, text in DATE.items()),
            " }}",
        )
    )
    + "{% endmacro %}\n"
)
# Texts to find a chat template's place for text with; the second one shows whether it is changed there.
PROBES, REPLY = ("Text 1.", 'É <b>"it\'s"</b> & {{x}}\n\n{%  it'), "Reply 1."

PromptChoice = Literal["auto", "chat", "study"]


@dataclass(frozen=True)
class Template:
    """The text around an instruction and an input, and the token that ends an answer."""

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    name: Literal["chat", "study"]
    head: str  # before the instruction
    tail: str  # between the input and the answer
    end: str = ""  # the token that ends an answer; EOS if empty

    def opening(self, instruction: str) -> str:
        """Return the prompt up to the input."""
        return f"{self.head}{instruction}{BETWEEN}"


STUDY = Template("study", BEFORE, TAIL)


@dataclass(frozen=True)
class Frame:
    """A template in the tokens of a tokenizer, all but the run of text that holds the input."""

    before: list[int]  # up to the last control token before the input; BOS for the study's template
    opening: str  # the run's text before the input
    closing: str  # the run's text behind the input
    after: list[int]  # from the first control token behind the input
    lead: str  # text that the answer follows in its own run
    end: int  # token that ends an answer
    reader: PreTrainedTokenizerBase  # of the run with the input
    answers_reader: PreTrainedTokenizerBase

    def prompts(self, inputs: Sequence[str]) -> list[list[int]]:
        """Return the token ids of whole prompts.

        Added tokens in an input are plain text: ``</s>`` in a post is a few characters, not the end of the answer.
        """
        rows = plain_ids(self.reader, [f"{self.opening}{text}{self.closing}" for text in inputs])
        return [[*self.before, *ids, *self.after] for ids in rows]

    def answers(self, answers: Sequence[str]) -> list[list[int]]:
        """Return the token ids of answers as they continue a prompt, each with its end."""
        # Some tokenizers put a space at the start of a text, so an answer alone would get other tokens than behind a prompt.
        before, *rows = plain_ids(self.answers_reader, [self.lead, *(self.lead + answer for answer in answers)])
        joined = any(row[: len(before)] != before for row in rows)
        rows = plain_ids(self.answers_reader, answers) if joined else [row[len(before) :] for row in rows]
        return [[*row, self.end] for row in rows]


def frame_of(tokenizer: PreTrainedTokenizerBase, template: Template, instruction: str = "") -> Frame:
    """Return the tokens of a template around inputs.

    Raises:
        UserError: A chat template that was made for another tokenizer, or whose control tokens cannot be told from text.
    """
    opening, tail = template.opening(instruction), template.tail
    if template.name == "study":
        start, end = bos_ids(tokenizer), tokenizer.eos_token_id
        return Frame(start, opening, tail, [], tail, end, tokenizer, tokenizer)
    end, added = tokenizer.convert_tokens_to_ids(template.end), added_ids(tokenizer)
    if end not in added:
        problem = f"answers end with {shown(template.end)}, which its tokenizer does not have as a control token"
        raise UserError(problem, file=tokenizer.name_or_path, fix="retrain the adapter on this base")
    if not tokenizer.is_fast:
        problem = "this kind of tokenizer does not tell where control tokens of a chat template are"
        raise UserError(problem, file=tokenizer.name_or_path, fix="use --prompt study")
    start, stop = len(opening), len(opening) + len(REPLY)
    text = opening + REPLY + tail
    row = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    control = [(i, *row.offset_mapping[i]) for i, token in enumerate(row.input_ids) if token in added]
    # White space that a control token takes along belongs to its place.
    last, _, begins = max((each for each in control if each[1] < start), default=(-1, 0, 0))
    first, ends, _ = min((each for each in control if each[1] >= stop), default=(len(row.input_ids), len(text), 0))
    lead = text[max([stop, *(each[2] for each in control)]) :]
    before, after = row.input_ids[: last + 1], row.input_ids[first:]
    frame = Frame(
        before,
        text[begins:start],
        text[stop:ends],
        after,
        lead,
        end,
        _behind_control(tokenizer) if before else tokenizer,
        _behind_control(tokenizer) if before or after else tokenizer,
    )
    if frame.prompts([REPLY]) != [row.input_ids]:
        problem = "its tokenizer reads text behind control tokens otherwise than text alone"
        raise UserError(problem, file=tokenizer.name_or_path, fix="use --prompt study")
    return frame


@lru_cache(maxsize=2)
def _behind_control(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """Return a tokenizer that reads a text as behind a control token: without a space that only a start gets."""
    scheme = getattr(tokenizer.backend_tokenizer.pre_tokenizer, "prepend_scheme", None)
    if scheme != "first":
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.pre_tokenizer.prepend_scheme = "never"
    return tokenizer


def template_for(
    tokenizer: PreTrainedTokenizerBase, choice: PromptChoice, base: str, examples: Sequence[tuple[str, str]] = ()
) -> Template:
    """Return the template that a base is prompted through; ``auto`` is its chat template, if it has one.

    Args:
        tokenizer: The base's.
        choice: What the user asked for.
        base: The base's name, for messages.
        examples: Inputs with their instruction, and their answers, that precede the input.

    Raises:
        UserError: No chat template, or one that cannot be used.
    """
    own = tokenizer.chat_template
    if choice == "chat" and not own:
        raise UserError("its tokenizer has no chat template", file=base, fix="use --prompt study")
    if choice == "study" or not own:
        worked = (f"{text}{TAIL}{answer}\n\n### Instruction:\n" for text, answer in examples)
        return replace(STUDY, head=BEFORE + "".join(worked))
    if isinstance(own, dict):
        names = ", ".join(map(shown, own))
        if "default" not in own:
            problem = f"it has several chat templates ({names}) and none is the default"
            raise UserError(problem, file=base, fix="use --prompt study")
        log(f"{base} has several chat templates ({names}): prompts follow the default")
        own = own["default"]
    return _chat_template(tokenizer, FIXED_DATE + own if "strftime_now" in own else own, base, examples)


def _chat_template(
    tokenizer: PreTrainedTokenizerBase, own: str, base: str, examples: Sequence[tuple[str, str]]
) -> Template:
    def refuse(problem: str) -> UserError:
        return UserError(f"its chat template {problem}", file=base, fix="use --prompt study")

    def render(*turns: str, **settings: Any) -> str:
        chat = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]
        try:
            return tokenizer.apply_chat_template(
                chat, chat_template=own, tokenize=False, enable_thinking=False, **settings
            )
        except Exception as error:  # whatever a template does, or raises itself
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise refuse(f"does not take these turns: {shown(reason, 100)}") from error

    earlier = [text for example in examples for text in example]
    texts = [(render(*earlier, probe, add_generation_prompt=True), probe) for probe in PROBES]
    around = {tuple(text.split(probe)) for text, probe in texts}
    replied = render(PROBES[0], REPLY).split(REPLY)
    if len(around) != 1 or len(parts := around.pop()) != 2 or len(replied) != 2:
        raise refuse("has no place for a text and an answer, or changes them")
    head, tail = parts
    if not all(text in head for text in earlier):
        raise refuse("changes examples")
    if tail.rstrip().endswith("<think>"):
        raise refuse("begins an answer with thoughts, which cannot be switched off")
    ids, added = tokenizer(replied[1], add_special_tokens=False).input_ids, added_ids(tokenizer)
    place = next((i for i, token in enumerate(ids) if token in added), 0)
    ends = ids and ids[place] in added and not tokenizer.decode(ids[:place]).strip()
    end = tokenizer.convert_ids_to_tokens(ids[place]) if ends else tokenizer.eos_token
    return Template("chat", head, tail, end)


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, answers: Sequence[str], template: Template = STUDY
) -> list[list[int]]:
    """Return the token ids of answers as they continue a prompt, each with its end."""
    return frame_of(tokenizer, template).answers(answers)


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the BOS token that a tokenizer puts in front of a text; nothing if it puts none."""
    added = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return [tokenizer.bos_token_id] if added and plain_ids(tokenizer, ["a"])[0][:1] != [tokenizer.bos_token_id] else []


def plain_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Return the token ids of texts without BOS and EOS; added tokens in them are plain text."""
    if not texts:
        return []
    rows, added = tokenizer(list(texts), **PLAIN).input_ids, added_ids(tokenizer)
    return [as_text(tokenizer, ids, added) for ids in rows]


def token_places(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Return the first character of each of a text's tokens, and the one behind it; not for slow tokenizers."""
    return tokenizer(text, **PLAIN, return_offsets_mapping=True).offset_mapping


def mark_added(tokenizer: PreTrainedTokenizerBase) -> None:
    """Mark all added tokens as special, so that ``split_special_tokens`` splits each; the tokenizer is saved so, too."""
    if tokenizer.is_fast:
        tokens = [tokenizer.added_tokens_decoder[i] for i in sorted(added_ids(tokenizer))]
        for token in (others := [token for token in tokens if not token.special]):
            token.special = True
        tokenizer.backend_tokenizer.add_special_tokens(others)


def added_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Return the ids of the added tokens that no text may have: control tokens such as ``</s>``, and any others.

    White space and single characters are text anyway, and the unknown token stands for any text.
    """
    names = {i: token.content.replace("\u2581", " ").strip() for i, token in tokenizer.added_tokens_decoder.items()}
    control = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.cls_token_id}
    added = {i for i, name in names.items() if len(name) > 1 or (name and i in control)}
    return added - ({tokenizer.unk_token_id} - control)


def as_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], added: Set[int]) -> list[int]:
    """Return the tokens of a text with the unknown token in place of ``added`` ones.

    ``split_special_tokens`` leaves those that the vocabulary has, too: Unigram models find them there, even in text that
    only a normalizer makes equal to them.
    """
    if added.isdisjoint(ids):
        return ids
    candidates = (tokenizer.unk_token_id, *tokenizer("_", **PLAIN).input_ids, *range(len(tokenizer)))
    unknown = next(i for i in candidates if i is not None and i not in added)
    return [unknown if i in added else i for i in ids]
