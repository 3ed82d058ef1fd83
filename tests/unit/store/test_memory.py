"""What only the memory store has: a clock that is passed in, and forgetting."""

from __future__ import annotations

import datetime

import pytest

from ucloud.errors import Compacted, StoreError
from ucloud.store.api import Delete, Put, Txn
from ucloud.store.memory import MemoryStore


class ManualClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.now_s, datetime.UTC)


def test_leases_end_by_the_clock_that_was_passed_in() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    lease = store.grant_lease(10)
    store.commit(Txn((), (Put("a", b"", lease.id),)))
    clock.now_s += 9.9
    assert store.keep_lease(lease.id) == 10
    clock.now_s += 9.9
    assert store.get("a") is not None
    clock.now_s += 0.2
    assert store.get("a") is None
    assert store.keep_lease(lease.id) == 0


def test_a_lease_that_ended_is_seen_by_watches() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    watch = store.watch("", from_revision=0)
    lease = store.grant_lease(10)
    store.commit(Txn((), (Put("a", b"", lease.id), Put("b", b"", lease.id))))
    clock.now_s += 10
    assert store.get("a") is None
    batches = iter(watch)
    assert len(next(batches).events) == 2
    assert [event.kind for event in next(batches).events] == ["delete", "delete"]


def test_compaction_forgets_what_nobody_can_ask_for() -> None:
    store = MemoryStore()
    for number in range(5):
        store.commit(Txn((), (Put("a", b"%d" % number), Put("b", b""))))
    store.commit(Txn((), (Delete("b"),)))
    last = store.commit(Txn((), (Put("a", b"last"), Put("c", b"")))).revision
    store.compact(last)
    assert [(item.key, item.value, item.version) for item in store.list("").items] == [
        ("a", b"last", 6),
        ("c", b"", 1),
    ]
    with pytest.raises(Compacted):
        store.list("", revision=last - 1)
    with pytest.raises(StoreError):
        store.compact(last)
    revision = store.commit(Txn((), (Put("b", b"again"),))).revision
    item = store.get("b")
    assert item is not None
    assert (item.create_revision, item.version) == (revision, 1)
    assert len(store.list("", revision=last).items) == 2
