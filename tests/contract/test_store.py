"""What every store must do: run on the memory store and on real etcd."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ucloud.errors import Compacted, StoreError
from ucloud.store.api import (
    LEASE_ENDED,
    Delete,
    EventKind,
    Put,
    Store,
    Txn,
    WatchBatch,
    WatchEvent,
    absent,
    created_at,
    unchanged,
)
from ucloud.store.etcd import EtcdStore
from ucloud.store.memory import MemoryStore


def put(store: Store, key: str, value: bytes = b"v", lease: int = 0) -> int:
    done = store.commit(Txn((), (Put(key, value, lease),)))
    assert done.ok
    return done.revision


def delete(store: Store, key: str) -> int:
    return store.commit(Txn((), (Delete(key),))).revision


def compact(store: Store, revision: int) -> None:
    """Not part of the interface: etcd does it by itself."""
    if isinstance(store, MemoryStore):
        store.compact(revision)
    else:
        assert isinstance(store, EtcdStore)
        store.compact(revision)


def take_events(batches: Iterator[WatchBatch], count: int) -> list[WatchEvent]:
    events: list[WatchEvent] = []
    while len(events) < count:
        events += next(batches).events
    return events


def test_a_missing_key_is_none(store: Store, root: str) -> None:
    assert store.get(root + "none") is None
    assert store.list(root).items == ()


def test_put_then_get(store: Store, root: str) -> None:
    first = put(store, root + "a", b"1")
    second = put(store, root + "a", b"2")
    item = store.get(root + "a")
    assert item is not None
    assert (item.key, item.value, item.create_revision, item.mod_revision, item.version, item.lease) == (
        root + "a",
        b"2",
        first,
        second,
        2,
        0,
    )


def test_a_key_made_again_is_a_new_one(store: Store, root: str) -> None:
    put(store, root + "a")
    delete(store, root + "a")
    revision = put(store, root + "a")
    item = store.get(root + "a")
    assert item is not None
    assert (item.create_revision, item.version) == (revision, 1)


@pytest.mark.parametrize("value", [b"", b"\x00\xff\n", "grüße 世界".encode(), b"x" * (1 << 20)])
def test_values_are_bytes(store: Store, root: str, value: bytes) -> None:
    put(store, root + "a", value)
    item = store.get(root + "a")
    assert item is not None
    assert item.value == value


def test_keys_may_hold_any_text(store: Store, root: str) -> None:
    names = sorted([root + "ü/世", root + 'a "b" \\', root + "a\n", root + "\U0001f600"])
    for name in names:
        put(store, name)
    assert [item.key for item in store.list(root).items] == names


def test_a_listing_is_sorted_and_holds_only_its_prefix(store: Store, root: str) -> None:
    for name in ("b/2", "b/10", "b", "c/1", "a"):
        put(store, root + name)
    assert [item.key for item in store.list(root + "b/").items] == [root + "b/10", root + "b/2"]


def test_a_long_listing_is_whole(store: Store, root: str) -> None:
    names = [f"{root}{index:05d}" for index in range(2500)]
    for start in range(0, len(names), 500):
        store.commit(Txn((), tuple(Put(name, b"x" * 50) for name in names[start : start + 500])))
    listing = store.list(root)
    assert [item.key for item in listing.items] == names
    assert listing.revision >= listing.items[-1].mod_revision


def test_large_values_list_in_small_pages(store: Store, root: str) -> None:
    for index in range(8):
        put(store, f"{root}{index}", b"x" * (1 << 20))
    assert [len(item.value) for item in store.list(root).items] == [1 << 20] * 8


def test_a_listing_as_of_a_revision(store: Store, root: str) -> None:
    revision = put(store, root + "a", b"old")
    put(store, root + "a", b"new")
    put(store, root + "b")
    delete(store, root + "a")
    listing = store.list(root, revision=revision)
    assert listing.revision == revision
    assert [(item.key, item.value) for item in listing.items] == [(root + "a", b"old")]
    assert [item.key for item in store.list(root).items] == [root + "b"]


def test_a_listing_of_the_future_is_refused(store: Store, root: str) -> None:
    revision = put(store, root + "a")
    with pytest.raises(StoreError):
        store.list(root, revision=revision + 10_000)


def test_a_compacted_listing(store: Store, root: str) -> None:
    old = put(store, root + "a", b"1")
    new = put(store, root + "a", b"2")
    compact(store, new)
    with pytest.raises(Compacted):
        store.list(root, revision=old)
    assert [item.value for item in store.list(root, revision=new).items] == [b"2"]


def test_compares(store: Store, root: str) -> None:
    key, none = root + "a", root + "none"
    created = put(store, key, b"1")
    changed = put(store, key, b"2")
    true = [
        absent(none),
        unchanged(none, 0),
        unchanged(key, changed),
        created_at(key, created),
    ]
    false = [
        absent(key),
        unchanged(key, created),
        unchanged(key, 0),
        created_at(key, changed),
    ]
    for compare in true:
        assert store.commit(Txn((compare,), ())).ok, compare
    for compare in false:
        assert not store.commit(Txn((compare,), ())).ok, compare
    assert not store.commit(Txn((*true, false[0]), ())).ok


def test_a_failed_compare_writes_nothing(store: Store, root: str) -> None:
    revision = put(store, root + "a", b"1")
    writes = (Put(root + "a", b"2"), Put(root + "b", b"2"))
    done = store.commit(Txn((absent(root + "b"), unchanged(root + "a", revision - 1)), writes))
    assert (done.ok, done.revision) == (False, revision)
    assert [(item.key, item.value) for item in store.list(root).items] == [(root + "a", b"1")]


def test_a_transaction_is_one_revision(store: Store, root: str) -> None:
    put(store, root + "a")
    done = store.commit(Txn((), (Put(root + "b", b"2"), Delete(root + "a"), Put(root + "c", b"3"))))
    assert done.ok
    assert [item.mod_revision for item in store.list(root).items] == [done.revision] * 2


def test_deleting_nothing_changes_nothing(store: Store, root: str) -> None:
    revision = put(store, root + "a")
    done = store.commit(Txn((), (Delete(root + "none"),)))
    assert (done.ok, done.revision) == (True, revision)


@pytest.mark.parametrize(
    "writes",
    [
        (Put("/twice", b"1"), Put("/twice", b"2")),
        (Put("/twice", b"1"), Delete("/twice")),
        (Put("", b"1"),),
        (Put("/large", b"x" * 2_000_000),),
        tuple(Put(f"/many/{index}", b"") for index in range(1025)),
    ],
    ids=["twice", "put and delete", "empty key", "too large", "too many"],
)
def test_refused_transactions(store: Store, writes: tuple[Put | Delete, ...]) -> None:
    with pytest.raises(StoreError):
        store.commit(Txn((), writes))


def test_1024_writes_are_one_transaction(store: Store, root: str) -> None:
    assert store.commit(Txn((), tuple(Put(f"{root}{index}", b"") for index in range(1024)))).ok


def test_one_of_many_wins(store: Store, root: str) -> None:
    wins: list[int] = []

    def claim(index: int) -> None:
        for number in range(20):
            if store.commit(Txn((absent(f"{root}{number}"),), (Put(f"{root}{number}", b"%d" % index),))).ok:
                wins.append(number)

    threads = [threading.Thread(target=claim, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == list(range(20))


def test_a_watch_shows_puts_and_deletes_in_order(store: Store, root: str) -> None:
    first = put(store, root + "a", b"1")
    watch = store.watch(root, from_revision=first)
    batches = iter(watch)
    put(store, root[:-1] + "-other", b"not ours")
    deleted = store.commit(Txn((), (Put(root + "b", b"2"), Delete(root + "a")))).revision
    events = take_events(batches, 3)
    assert [(event.kind, event.item.key, event.item.value) for event in events] == [
        (EventKind.PUT, root + "a", b"1"),
        (EventKind.PUT, root + "b", b"2"),
        (EventKind.DELETE, root + "a", b""),
    ]
    assert [event.item.mod_revision for event in events] == [first, deleted, deleted]
    watch.close()
    assert list(batches) == []


def test_a_watch_from_the_past_resumes_where_one_ended(store: Store, root: str) -> None:
    revisions = [put(store, f"{root}{index}") for index in range(10)]
    watch = store.watch(root, from_revision=revisions[0])
    batches = iter(watch)
    seen = take_events(batches, 1)
    watch.close()
    watch = store.watch(root, from_revision=seen[-1].item.mod_revision + 1)
    seen += take_events(iter(watch), 10 - len(seen))
    watch.close()
    assert [event.item.mod_revision for event in seen] == revisions


def test_a_watch_from_now(store: Store, root: str) -> None:
    put(store, root + "before")
    watch = store.watch(root, from_revision=0)
    seen: list[WatchEvent] = []
    reader = threading.Thread(target=lambda: seen.extend(take_events(iter(watch), 1)))
    reader.start()
    deadline = time.monotonic() + 10
    while not seen and time.monotonic() < deadline:
        put(store, root + "after")
        reader.join(0.05)
    watch.close()
    reader.join()
    assert [event.item.key for event in seen][:1] == [root + "after"]


def test_batches_tell_how_far_they_go(store: Store, root: str) -> None:
    start = put(store, root + "0")
    for index in range(1, 50):
        store.commit(Txn((), (Put(f"{root}{index}", b""), Put(f"{root}x{index}", b""))))
    watch = store.watch(root, from_revision=start)
    last, count = 0, 0
    for batch in watch:
        revisions = [event.item.mod_revision for event in batch.events]
        assert revisions == sorted(revisions)
        assert batch.revision >= max(revisions, default=0)
        assert min(revisions, default=batch.revision + 1) > last  # a revision is never cut in two
        last, count = batch.revision, count + len(revisions)
        if count == 99:
            break
    watch.close()


def test_a_compacted_watch_says_so(store: Store, root: str) -> None:
    old = put(store, root + "a", b"1")
    put(store, root + "a", b"2")
    compact(store, put(store, root + "a", b"3"))
    watch = store.watch(root, from_revision=old)
    with pytest.raises(Compacted):
        next(iter(watch))


def test_a_watch_at_the_compacted_revision_is_whole(store: Store, root: str) -> None:
    put(store, root + "a", b"1")
    last = put(store, root + "a", b"2")
    compact(store, last)
    watch = store.watch(root, from_revision=last)
    assert [event.item.value for event in take_events(iter(watch), 1)] == [b"2"]
    watch.close()


def test_close_ends_a_waiting_watch_at_once(store: Store, root: str) -> None:
    watch = store.watch(root, from_revision=store.list(root).revision + 1)
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        for _batch in watch:
            reading.set()
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    put(store, root + "a")
    assert reading.wait(5)
    started = time.monotonic()
    watch.close()
    thread.join(5)
    assert done.is_set()
    assert time.monotonic() - started < 1


def test_a_quiet_watch_gives_signs_of_life(store: Store, root: str) -> None:
    revision = store.list(root).revision
    watch = store.watch(root, from_revision=revision + 1)
    batch = next(iter(watch))
    assert batch.events == ()
    assert batch.revision >= revision
    watch.close()


def test_a_lease_that_ends_deletes_its_keys(store: Store, root: str) -> None:
    lease = store.grant_lease(1)
    assert lease.ttl_s == 1
    revision = put(store, root + "a", b"alive", lease.id)
    item = store.get(root + "a")
    assert item is not None
    assert item.lease == lease.id
    watch = store.watch(root, from_revision=revision + 1)
    events = take_events(iter(watch), 1)
    watch.close()
    assert [(event.kind, event.item.key) for event in events] == [(EventKind.DELETE, root + "a")]
    assert store.get(root + "a") is None
    assert store.keep_lease(lease.id) == 0


def test_a_kept_lease_stays(store: Store, root: str) -> None:
    lease, other = store.grant_lease(1), store.grant_lease(1)
    put(store, root + "a", b"alive", lease.id)
    put(store, root + "other", b"not kept", other.id)
    until = time.monotonic() + 10
    while store.get(root + "other") is not None:
        assert store.keep_lease(lease.id) == 1
        assert time.monotonic() < until
        time.sleep(0.05)
    assert store.get(root + "a") is not None
    store.revoke_lease(lease.id)


def test_revoking_deletes_all_keys_at_once(store: Store, root: str) -> None:
    lease = store.grant_lease(60)
    put(store, root + "a", b"", lease.id)
    put(store, root + "b", b"", lease.id)
    revision = put(store, root + "stays", b"")
    store.revoke_lease(lease.id)
    assert [item.key for item in store.list(root).items] == [root + "stays"]
    watch = store.watch(root, from_revision=revision + 1)
    assert [event.item.key for event in next(iter(watch)).events] == [root + "a", root + "b"]
    watch.close()
    store.revoke_lease(lease.id)  # gone: nothing happens


def test_a_write_without_the_lease_leaves_it(store: Store, root: str) -> None:
    lease = store.grant_lease(60)
    put(store, root + "a", b"", lease.id)
    put(store, root + "a", b"")
    store.revoke_lease(lease.id)
    assert store.get(root + "a") is not None


def test_a_write_on_an_ended_lease_is_refused(store: Store, root: str) -> None:
    lease = store.grant_lease(60)
    store.revoke_lease(lease.id)
    with pytest.raises(StoreError) as refused:
        put(store, root + "a", b"", lease.id)
    assert refused.value.code == LEASE_ENDED
    assert str(lease.id) not in str(refused.value)
    assert store.get(root + "a") is None


def test_lease_ids_are_not_shown(store: Store, root: str) -> None:
    lease = store.grant_lease(60)
    put(store, root + "a", b"", lease.id)
    shown = f"{lease!r} {store.get(root + 'a')!r} {Put('a', b'', lease.id)!r} {store.list(root)!r}"
    assert str(lease.id) not in shown
    store.revoke_lease(lease.id)


def test_a_closed_store_refuses(store: Store, root: str) -> None:
    from ucloud.errors import StoreUnavailable

    store.close()
    with pytest.raises(StoreUnavailable):
        store.get(root)
    with pytest.raises(StoreUnavailable):
        store.watch(root, from_revision=0)
