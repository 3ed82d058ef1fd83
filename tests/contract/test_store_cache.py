"""The watch-fed cache, on the memory store and on real etcd."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.contract.test_store import compact, delete, put
from ucloud.errors import DeadlineExceeded, InvalidInput, StoreUnavailable
from ucloud.store.api import Delete, EventKind, Item, Put, Store, Txn, WatchEvent
from ucloud.store.cache import Cache


@pytest.fixture
def started() -> Iterator[Callable[..., Cache[Item]]]:
    """Starts caches and stops them after the test."""
    caches: list[Cache[Item]] = []

    def start(*args: object, **kwargs: object) -> Cache[Item]:
        cache: Cache[Item] = Cache(*args, **kwargs)  # type: ignore[arg-type]
        caches.append(cache)
        cache.start()
        return cache

    yield start
    for cache in caches:
        cache.stop()


def keys_in(cache: Cache[Item], revision: int) -> list[str]:
    return list(cache.wait_for(revision, 5).items)


def test_it_holds_what_was_there_and_what_comes(store: Store, root: str, started: Callable[..., Cache[Item]]) -> None:
    put(store, root + "a/1")
    cache = started(store, [root + "a/"])
    assert keys_in(cache, 0) == [root + "a/1"]
    assert keys_in(cache, put(store, root + "a/2")) == [root + "a/1", root + "a/2"]
    assert keys_in(cache, delete(store, root + "a/1")) == [root + "a/2"]


def test_several_prefixes_are_as_of_one_revision(store: Store, root: str, started: Callable[..., Cache[Item]]) -> None:
    cache = started(store, [root + "a/", root + "b/", root + "a/nested/"])
    done = store.commit(Txn((), (Put(root + "a/1", b""), Put(root + "b/1", b""), Put(root + "secret/1", b""))))
    snapshot = cache.wait_for(done.revision, 5)
    assert [item.key for item in snapshot.under(root)] == [root + "a/1", root + "b/1"]
    assert [item.key for item in snapshot.under(root + "b/")] == [root + "b/1"]
    assert snapshot.under(root + "c/") == []
    other = put(store, root + "secret/2")
    assert cache.wait_for(other, 5).revision >= other


def test_a_revision_elsewhere_does_not_hang(store: Store, root: str, started: Callable[..., Cache[Item]]) -> None:
    cache = started(store, [root + "a/"])
    cache.wait_for(0, 5)
    revision = put(store, root + "elsewhere")
    assert cache.wait_for(revision, 5).revision >= revision
    assert keys_in(cache, put(store, root + "a/1")) == [root + "a/1"]


def test_a_revision_that_never_comes(store: Store, root: str, started: Callable[..., Cache[Item]]) -> None:
    cache = started(store, [root])
    revision = cache.wait_for(0, 5).revision
    with pytest.raises(DeadlineExceeded):
        cache.wait_for(revision + 1_000_000, 0.5)


def test_a_snapshot_never_changes(store: Store, root: str, started: Callable[..., Cache[Item]]) -> None:
    cache = started(store, [root])
    old = cache.wait_for(put(store, root + "a", b"1"), 5)
    new = cache.wait_for(put(store, root + "a", b"2"), 5)
    assert (old.items[root + "a"].value, new.items[root + "a"].value) == (b"1", b"2")
    assert cache.snapshot().items is cache.snapshot().items
    with pytest.raises(TypeError):
        new.items[root + "b"] = new.items[root + "a"]  # type: ignore[index]


def test_values_are_decoded_once_and_broken_ones_stop_nothing(store: Store, root: str) -> None:
    count = 0

    def decode(item: Item) -> int:
        nonlocal count
        count += 1
        return int(json.loads(item.value)["n"])

    cache = Cache(store, [root], decode)
    cache.start()
    try:
        put(store, root + "good", b'{"n": 1}')
        put(store, root + "bad", b"{")
        snapshot = cache.wait_for(put(store, root + "odd", b"[]"), 5)
        assert dict(snapshot.values) == {root + "good": 1}
        assert snapshot.values_under(root) == [1]
        assert set(snapshot.broken) == {root + "bad", root + "odd"}
        assert cache.snapshot().values[root + "good"] == 1
        assert count == 3
        snapshot = cache.wait_for(put(store, root + "bad", b'{"n": 2}'), 5)
        assert (snapshot.values[root + "bad"], set(snapshot.broken)) == (2, {root + "odd"})
        snapshot = cache.wait_for(delete(store, root + "odd"), 5)
        assert not snapshot.broken
    finally:
        cache.stop()


def test_a_change_wakes(store: Store, root: str) -> None:
    woken = threading.Event()
    events: list[WatchEvent] = []

    def wake(changes: Sequence[WatchEvent]) -> None:
        events.extend(changes)
        woken.set()

    cache: Cache[Item] = Cache(store, [root])
    cache.on_change(wake)
    cache.start()
    try:
        cache.wait_for(0, 5)
        put(store, root + "a")
        assert woken.wait(5)
        assert [(event.kind, event.item.key) for event in events] == [(EventKind.PUT, root + "a")]
    finally:
        cache.stop()


def test_after_compaction_it_lists_again(store: Store, root: str) -> None:
    put(store, root + "stays")
    changed, deleted = put(store, root + "changed", b"1"), put(store, root + "deleted")
    cache: Cache[Item] = Cache(store, [root])
    events: list[WatchEvent] = []
    cache.on_change(events.extend)
    cache.start()
    cache.wait_for(max(changed, deleted), 5)
    cache.stop()
    events.clear()
    put(store, root + "changed", b"2")
    delete(store, root + "deleted")
    last = put(store, root + "new")
    compact(store, last)
    cache.start()
    try:
        snapshot = cache.wait_for(last, 5)
        assert sorted(snapshot.items) == [root + "changed", root + "new", root + "stays"]
        assert {(event.kind.value, event.item.key.removeprefix(root)) for event in events} == {
            ("put", "changed"),
            ("put", "new"),
            ("delete", "deleted"),
        }
    finally:
        cache.stop()


def test_before_the_first_answer_there_is_nothing(store: Store, root: str) -> None:
    cache: Cache[Item] = Cache(store, [root])
    with pytest.raises(StoreUnavailable):
        cache.snapshot()
    assert cache.age_s() == float("inf")


def test_stop_is_prompt_and_start_goes_on(store: Store, root: str) -> None:
    cache: Cache[Item] = Cache(store, [root])
    cache.start()
    cache.wait_for(0, 5)
    started_s = time.monotonic()
    cache.stop()
    assert time.monotonic() - started_s < 1
    revision = put(store, root + "a")
    cache.start()
    assert root + "a" in cache.wait_for(revision, 5).items
    cache.stop()


def test_a_cache_of_nothing_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput):
        Cache(store, [])


def test_every_snapshot_is_the_state_of_its_revision(
    store: Store, root: str, started: Callable[..., Cache[Item]]
) -> None:
    cache = started(store, [root + "a/", root + "b/"])
    rng = random.Random(7)
    done = threading.Event()

    def write() -> None:
        for number in range(200):
            names = rng.sample([f"{root}{folder}/{index}" for folder in "abc" for index in range(8)], 3)
            writes = [Put(name, b"%d" % number) if rng.random() < 0.6 else Delete(name) for name in names]
            store.commit(Txn((), tuple(writes)))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    checked = 0
    while not done.is_set() or checked < 10:
        snapshot = cache.wait_for(0, 5)
        folders = [store.list(f"{root}{folder}/", revision=snapshot.revision) for folder in "ab"]
        assert [*folders[0].items, *folders[1].items] == snapshot.under(root)
        assert dict(snapshot.items) == {item.key: item for item in snapshot.under(root)}
        checked += 1
    writer.join()
    last = store.list(root + "a/")
    assert list(last.items) == cache.wait_for(last.revision, 5).under(root + "a/")
