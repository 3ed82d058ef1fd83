"""The loop comes back after errors with a growing delay, and remembers how the last pass went."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ucloud.errors import Conflict
from ucloud.reconcile.loop import LONGEST_BACKOFF_S, Handler, Loop, backoff_s
from ucloud.system.clock import SystemClock


@pytest.fixture
def loops() -> Iterator[list[Loop]]:
    made: list[Loop] = []
    yield made
    for loop in made:
        loop.stop()


def start(loops: list[Loop], handler: Handler, *, workers: int = 1) -> Loop:
    loop = Loop("test", handler, clock=SystemClock(), workers=workers)
    loops.append(loop)
    loop.start()
    return loop


def test_backoff_grows_to_its_limit() -> None:
    delays = [backoff_s(failures) for failures in range(1, 20)]
    assert delays[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(delays) == LONGEST_BACKOFF_S


def test_an_error_is_retried_and_told(loops: list[Loop]) -> None:
    done = threading.Event()
    seen: list[str] = []

    def handler(key: str) -> None:
        if not seen:
            seen.append(key)
            raise Conflict("failed to do it: lost a race")
        done.set()

    loop = start(loops, handler)
    loop.wake("vm-1")
    assert done.wait(10)


def test_a_key_that_is_over_leaves_nothing_behind(loops: list[Loop]) -> None:
    done = threading.Event()
    loop = start(loops, lambda _: done.set())
    loop.wake("vm-1")
    assert done.wait(10)
    loop.stop()
    assert loop.passes() == {}


def test_a_mistake_in_the_handler_does_not_end_the_worker(loops: list[Loop]) -> None:
    done = threading.Event()

    def handler(key: str) -> None:
        if key == "bad":
            raise ZeroDivisionError("oops")
        done.set()

    loop = start(loops, handler)
    loop.wake("bad")
    loop.wake("good")
    assert done.wait(10)
    assert "ZeroDivisionError" in loop.passes()["bad"].error
    assert loop.passes()["bad"].failures_in_a_row >= 1


def test_workers_share_keys_but_never_one_key(loops: list[Loop]) -> None:
    inside: list[str] = []
    both = threading.Barrier(2, timeout=10)
    overlaps = []

    def handler(key: str) -> float:
        if key in inside:
            overlaps.append(key)
        inside.append(key)
        both.wait()
        inside.remove(key)
        return 60.0

    loop = start(loops, handler, workers=2)
    finished = threading.Event()
    for _ in range(5):
        loop.wake("a")
        loop.wake("b")
    while len(loop.passes()) < 2:
        finished.wait(0.01)
    assert overlaps == []


def test_a_handler_can_ask_to_come_back(loops: list[Loop]) -> None:
    thrice = threading.Event()
    count = []

    def handler(_: str) -> float:
        count.append(1)
        if len(count) == 3:
            thrice.set()
        return 0.01

    start(loops, handler).wake("a")
    assert thrice.wait(10)
