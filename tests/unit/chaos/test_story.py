"""A history that is cut into parts says the same as the whole: what is wrong in a later part is found in it."""

from __future__ import annotations

from typing import Any

from tests.chaos import story
from ucloud.lab.checker import check_history
from ucloud.lab.violations import Event
from ucloud.lab.violations import ViolationKind as Kind
from ucloud.store import keys

CUT_S = 50.0


def of(host: str, generation: int = 1) -> dict[str, Any]:
    return {"host": host, "incarnation": f"of-{host}", "generation": generation}


def put(at_s: float, revision: int, key: str, **value: Any) -> Event:
    return {"at_s": at_s, "kind": "store_put", "key": key, "revision": revision, **value}


def told(at_s: float, kind: str, **facts: Any) -> Event:
    return {"at_s": at_s, "kind": kind, "source": "test", "dropped": 0, "vm": "vm", **facts}


BEFORE = [
    put(0.0, 1, keys.alive("h1"), **of("h1")),
    put(0.0, 2, keys.alive("h2"), **of("h2")),
    put(1.0, 3, keys.placement("vm"), host="h1", generation=1),
    put(2.0, 4, keys.lock("h1", "vm"), **of("h1")),
    told(3.0, "vm_start", mode="run", **of("h1")),
    told(3.1, "vm_born", pid=41, **of("h1")),
    put(9.0, 5, keys.alive("h1"), **of("h1")),
]


def check_after(*events: Event, before: list[Event] = BEFORE) -> list[Kind]:
    state = story.state_after(before, CUT_S)
    return [violation.kind for violation in check_history([*state, *events, story.end_of(100.0)])]


def test_a_state_alone_is_in_order() -> None:
    assert check_after() == []


def test_what_ran_before_the_cut_overlaps_with_what_starts_after_it() -> None:
    second = [
        put(60.0, 6, keys.placement("vm"), host="h2", generation=2),
        put(61.0, 7, keys.lock("h2", "vm"), **of("h2", 2)),
        told(62.0, "vm_start", mode="run", **of("h2", 2)),
    ]
    assert set(check_after(*second)) == {Kind.OVERLAP, Kind.LOCK_SHARED}
    gone = [{"at_s": 55.0, "kind": "pid_exit", "pid": 41}, {**put(56.0, 0, ""), "kind": "store_delete"}]
    gone[1] |= {"key": keys.lock("h1", "vm"), "revision": 6}
    later = [{**event, "revision": event["revision"] + 1} if "revision" in event else event for event in second]
    assert check_after(*gone, *later) == []


def test_what_is_only_compared_with_is_nobodys_act() -> None:
    """A lock that an earlier guard's incarnation took stays in order, though that one lives no more."""
    before = [*BEFORE, put(10.0, 8, keys.alive("h1"), host="h1", incarnation="later")]
    assert check_after(before=before) == []
    assert Kind.LOCK_NOT_ALIVE in check_after(put(60.0, 9, keys.lock("h1", "vm"), **of("h1")), before=before)


def test_a_generation_may_not_fall_across_the_cut() -> None:
    before = [put(1.0, 3, keys.placement("other"), host="h1", generation=5)]
    fallen = put(60.0, 9, keys.placement("other"), host="h1", generation=4)
    assert check_after(fallen, before=before) == [Kind.GENERATION_FELL]


def test_what_stood_still_at_the_cut_does_not_run() -> None:
    for kind, goes in (("vm_paused", "vm_resume"), ("vm_freeze", "vm_thaw")):
        before = [*BEFORE, told(20.0, kind, **of("h1"))]
        unlocked = {"at_s": 55.0, "kind": "store_delete", "key": keys.lock("h1", "vm"), "revision": 9}
        assert check_after(unlocked, before=before) == []
        assert check_after(unlocked, told(60.0, goes, **of("h1")), before=before) == [Kind.RUNS_WITHOUT_LOCK]


def test_what_ended_is_not_carried() -> None:
    ended = [*BEFORE, {"at_s": 20.0, "kind": "pid_exit", "pid": 41}]
    assert {event["kind"] for event in story.state_after(ended, CUT_S)} == {"store_put"}


def test_facts_left_out_before_the_cut_do_not_count_after_it() -> None:
    before = story.dropped_after([{"source": "guard/h1", "dropped": 3}, {"source": "agent/h1", "dropped": 0}], {})
    events = [
        {"at_s": 1.0, "kind": "sync", "source": "guard/h1", "dropped": 3},
        {"at_s": 2.0, "kind": "sync", "source": "guard/h1", "dropped": 5},
        {"at_s": 3.0, "kind": "sync", "source": "guard/h1", "dropped": 1},
        {"at_s": 4.0, "kind": "sync", "source": "guard/h2", "dropped": 4},
    ]
    assert [event["dropped"] for event in story.without_dropped_before(events, before)] == [0, 2, 1, 4]
