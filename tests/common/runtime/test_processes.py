from __future__ import annotations

import pytest

from common.runtime import hardware
from common.runtime.processes import ALONE, Processes, join

EVERY = [(0, "A"), (1, "B")]


def upper(items: list[str]) -> list[str]:
    return [item.upper() for item in items]


def test_one_process_answers_all():
    assert ALONE.divided(["a", "b"], upper) == ["A", "B"]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_each_process_answers_its_share_and_all_get_everything(monkeypatch, rank):
    """The third has no items but takes part."""
    sent = []
    monkeypatch.setattr(Processes, "gathered", lambda _, own: sent.extend(own) or [[EVERY[1]], [], [EVERY[0]]])
    answer = upper if rank < 2 else lambda _: pytest.fail("no items")
    assert Processes(rank, 3).divided(["a", "b"], answer) == ["A", "B"]
    assert sent == EVERY[rank : rank + 1]


def test_a_command_without_a_launcher_is_alone_even_with_several_gpus(monkeypatch):
    monkeypatch.setattr(
        hardware, "check_processes", lambda: pytest.fail("it would refuse two GPUs, which only matters for training")
    )
    assert join() is ALONE
