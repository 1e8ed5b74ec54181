"""Answer posts with llama.cpp, as its server answers them, to compare it with the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.cli.console import bar
from common.models.llama_cpp import LlamaCpp
from common.models.loading import base_path
from common.models.prompt import answer_ids
from common.models.quantization import load_tokenizer
from sbic_llama.data.encoding import encode
from sbic_llama.data.features import Answers
from sbic_llama.model.answering import MAX_NEW_TOKENS
from sbic_llama.model.description import AnnotatorFile
from sbic_llama.model.scoring import label_probabilities


@dataclass(frozen=True)
class Task:
    """What llama.cpp is to answer."""

    path: Path  # GGUF file
    context: int  # tokens of the longest prompt and its answer
    threads: int
    description: AnnotatorFile
    posts: list[str]  # cleaned


@dataclass(frozen=True)
class Run:
    """What llama.cpp answered."""

    answers: Answers
    prompts: int  # posts for which a chat request has other tokens than the adapter reads
    written: int  # posts for which it would write another answer than its most probable label


@dataclass
class _Tree:
    """The answers behind one prompt, as a tree of tokens."""

    server: LlamaCpp
    prompt: Sequence[int]
    branches: Sequence[Sequence[int]]
    _next: dict[tuple[int, ...], dict[int, float]] = field(default_factory=dict)

    def next_tokens(self, path: tuple[int, ...]) -> dict[int, float]:
        if path not in self._next:
            wanted = {row[len(path)] for row in self.branches if tuple(row[: len(path)]) == path}
            self._next[path] = self.server.next_tokens([*self.prompt, *path], wanted)
        return self._next[path]

    def scores(self) -> list[float]:
        """Return the log-probability of each branch."""
        return [sum(self.next_tokens(tuple(row[:i]))[token] for i, token in enumerate(row)) for row in self.branches]

    def written(self) -> int | None:
        """Return the branch that is written token by token; None if something else would be."""
        path, rows = (), [tuple(row) for row in self.branches]
        while path not in rows:
            path = (*path, next(iter(self.next_tokens(path))))
            if not any(row[: len(path)] == path for row in rows):
                return None
        return rows.index(path)


def run_llama_cpp(task: Task) -> Run:
    """Answer posts with llama.cpp from the prompts that the adapter reads; for a child process, which llama.cpp may end.

    A chat request with each post is only turned into tokens, to see whether it becomes the same prompt. Posts that the adapter
    reads the start of are left out of that.
    """
    description, posts = task.description, task.posts
    feature = description.resolve_feature()
    tokenizer = load_tokenizer(base_path(description.base_model), description.base_revision)
    server = LlamaCpp(task.path, task.context, len(tokenizer), task.threads)
    encoded = encode(tokenizer, feature, posts, max_post_tokens=description.max_post_tokens)
    limit = encoded.around + description.max_post_tokens
    branches = answer_ids(tokenizer, feature.branches, feature.template) if feature.branches else []
    answers, prompts, written = Answers([], [], encoded.cut), 0, 0
    with bar(len(posts), "post", show=True) as done:
        for post, prompt in zip(posts, encoded.prompts, strict=True):
            prompts += len(prompt) < limit and server.chat_tokens(post) != prompt
            if branches:
                tree = _Tree(server, prompt, branches)
                (row,) = label_probabilities(np.array([tree.scores()]), description.temperature)
                answers.labels.append(int(row.argmax()))
                names = (f"probability_{label}" for label in feature.labels)
                answers.details.append(dict(zip(names, map(float, row), strict=True)))
                written += tree.written() != answers.labels[-1]
            else:
                text, log_probabilities = server.write(prompt, MAX_NEW_TOKENS)
                answers.labels.append(feature.parse(text))
                answers.details.append({"mean_log_probability": float(np.mean(log_probabilities)), "margin": 0.0})
            done.update(1)
    return Run(answers, prompts, written)
