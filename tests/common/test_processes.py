from __future__ import annotations

import accelerate.utils
import pytest

from common.processes import divided

EVERY = [(0, "A"), (1, "B")]


def upper(items: list[str]) -> list[str]:
    return [item.upper() for item in items]


def test_one_process_answers_all():
    assert divided(["a", "b"], upper) == ["A", "B"]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_process_answers_its_part_and_all_get_all(monkeypatch, rank):
    """The third has none, and takes part."""
    sent = []
    monkeypatch.setattr(accelerate.utils, "gather_object", lambda own: sent.extend(own) or EVERY[::-1])
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", str(rank))
    assert divided(["a", "b"], upper if rank < 2 else lambda _: pytest.fail("it has no item")) == ["A", "B"]
    assert sent == EVERY[rank : rank + 1]
