"""Run a GGUF file in llama.cpp (the optional package xllamacpp), to compare it with the model that it was made from."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from common.cli.errors import UserError

TIMEOUT = 600  # seconds for one answer
MOST_PROBABLE = 256  # tokens whose probabilities are asked for; all of them, if a wanted one is not among these


class LlamaCpp:
    """llama.cpp with one model, behind its own HTTP server on the loopback, as Ollama runs it.

    Args:
        path: GGUF file.
        context: Tokens of the longest prompt and its answer.
        vocabulary: Number of tokens that the model knows.
        threads: Threads to compute with.

    It runs until the process ends. Give it a process of its own, because llama.cpp aborts the one that it is in when it fails.

    Raises:
        UserError: llama.cpp does not load the file.
    """

    _running: ClassVar[list[Any]] = []

    def __init__(self, path: Path, context: int, vocabulary: int, threads: int):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel = context, 1
        params.cpuparams.n_threads = threads
        params.verbosity, params.warmup = 0, False
        self.vocabulary = vocabulary
        try:
            server = xllamacpp.Server(params)
        except RuntimeError as error:
            raise UserError("llama.cpp cannot load it", file=path, fix="look at its messages above") from error
        self._running.append(server)
        self.url = server.listening_address

    def ask(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a request to the server."""
        data, header = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{route}", data, header)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:
            return json.load(reply)

    def tokens(self, text: str, *, control: bool, bos: bool) -> list[int]:
        """Return the tokens of a text; ``control`` is whether names of control tokens in it stand for them."""
        return self.ask("/tokenize", {"content": text, "add_special": bos, "parse_special": control})["tokens"]

    def chat_tokens(self, post: str) -> list[int]:
        """Return the tokens that a chat request with a post becomes."""
        prompt = self.ask("/apply-template", {"messages": [{"role": "user", "content": post}]})["prompt"]
        return self.tokens(prompt, control=True, bos=True)

    def write(self, prompt: Sequence[int], most: int) -> tuple[str, list[float]]:
        """Write greedily; return the text and the log-probability of each of its tokens."""
        reply = self._complete(prompt, n_predict=most, n_probs=1)
        return reply["content"], [each["logprob"] for each in reply["completion_probabilities"]]

    def next_tokens(self, prompt: Sequence[int], wanted: set[int]) -> dict[int, float]:
        """Return log-probabilities of next tokens, the most probable first, ``wanted`` ones among them."""
        for number in (MOST_PROBABLE, self.vocabulary):
            reply = self._complete(prompt, n_predict=1, n_probs=min(number, self.vocabulary))
            listed = {each["id"]: each["logprob"] for each in reply["completion_probabilities"][0]["top_logprobs"]}
            if wanted <= listed.keys():
                break
        return listed

    def _complete(self, prompt: Sequence[int], **settings: int) -> dict[str, Any]:
        return self.ask("/completion", {"prompt": list(prompt), "temperature": 0, "cache_prompt": True, **settings})
