"""The queue hands out each due key once, and never one that is being worked on."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.clock import ManualClock
from ucloud.reconcile.queue import WorkQueue
from ucloud.system.clock import SystemClock


def take(queue: WorkQueue) -> str | None:
    return queue.take(timeout_s=0.0)


def test_a_key_is_handed_out_once() -> None:
    queue = WorkQueue(ManualClock())
    queue.add("a")
    queue.add("a")
    assert take(queue) == "a"
    assert take(queue) is None


def test_keys_come_in_the_order_of_their_time() -> None:
    clock = ManualClock()
    queue = WorkQueue(clock)
    queue.add("late", delay_s=5)
    queue.add("soon", delay_s=1)
    assert take(queue) is None
    clock.sleep(5)
    assert [take(queue), take(queue)] == ["soon", "late"]


def test_an_earlier_wake_up_wins() -> None:
    clock = ManualClock()
    queue = WorkQueue(clock)
    queue.add("a", delay_s=10)
    queue.add("a", delay_s=1)
    queue.add("a", delay_s=20)
    clock.sleep(1)
    assert take(queue) == "a"
    clock.sleep(100)
    assert take(queue) is None


def test_a_wake_up_while_working_comes_back_after_done() -> None:
    queue = WorkQueue(ManualClock())
    queue.add("a")
    assert take(queue) == "a"
    queue.add("a")
    assert take(queue) is None
    queue.done("a")
    assert take(queue) == "a"


def test_closing_ends_waiting_takers() -> None:
    queue = WorkQueue(SystemClock())
    ended = threading.Event()

    def taker() -> None:
        assert queue.take(timeout_s=60.0) is None
        ended.set()

    thread = threading.Thread(target=taker)
    thread.start()
    queue.close()
    assert ended.wait(10)
    thread.join()


@given(
    st.lists(st.tuples(st.sampled_from(["add", "take", "done"]), st.sampled_from("abc"), st.floats(0, 3)), max_size=60)
)
def test_no_key_is_ever_worked_on_twice_or_lost(steps: list[tuple[str, str, float]]) -> None:
    clock = ManualClock()
    queue = WorkQueue(clock)
    working: set[str] = set()
    waiting: set[str] = set()
    for what, key, delay_s in steps:
        if what == "add":
            queue.add(key, delay_s=delay_s)
            waiting.add(key)
        elif what == "take":
            clock.sleep(delay_s)
            taken = take(queue)
            if taken is not None:
                assert taken not in working
                working.add(taken)
                waiting.discard(taken)
        elif key in working:
            queue.done(key)
            working.discard(key)
    for key in working:
        queue.done(key)
    clock.sleep(10)
    rest = set()
    while (key := take(queue)) is not None:
        rest.add(key)
    assert rest == waiting
