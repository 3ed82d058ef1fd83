"""When a wait gives up before its deadline, with a clock that only the test moves."""

from __future__ import annotations

import datetime

import pytest

from ucloud.client import Object
from ucloud.client.waiting import Wish, wait_until
from ucloud.errors import Conflict


class SteppingClock:
    """Ten seconds pass with each look at it."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        self._now_s += 10
        return self._now_s

    def now(self) -> datetime.datetime:
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def _read(words: list[str]) -> Object:
    return {"status": {"word": words.pop(0) if len(words) > 1 else words[0], "reason": "no memory"}}


def test_a_bad_word_that_stays_ends_the_wait() -> None:
    words = ["scheduling", "unschedulable", "unschedulable"]
    wish = Wish("vm web", ("running",), 1000, {"unschedulable": 15})
    with pytest.raises(Conflict, match="unschedulable: no memory") as caught:
        wait_until(lambda: _read(words), wish, clock=SteppingClock())
    assert caught.value.code == "wait_unschedulable"


def test_a_bad_word_that_passes_does_not() -> None:
    words = ["failed", "starting", "failed", "running"]
    wish = Wish("vm web", ("running",), 1000, {"failed": 15})
    assert wait_until(lambda: _read(words), wish, clock=SteppingClock()) is not None
