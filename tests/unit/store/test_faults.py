"""Cache and election on a store that fails on purpose."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.unit.store.test_memory import ManualClock
from ucloud.errors import DeadlineExceeded, OutcomeUnknown, StoreUnavailable
from ucloud.store.api import Committed, Item, Listing, Put, Txn, Watch
from ucloud.store.cache import Cache
from ucloud.store.election import Election
from ucloud.store.memory import MemoryStore


class FailingStore(MemoryStore):
    """A memory store that is down while ``down`` is set and loses the answers of the next ``lost`` commits."""

    def __init__(self) -> None:
        super().__init__()
        self.down = threading.Event()
        self.lost = 0
        self.lists = 0
        self.refused = 0
        self._watches: list[Watch] = []

    def fail(self) -> None:
        """Go down; open watches end with it."""
        self.down.set()
        for watch in self._watches:
            watch.close()

    def list(self, prefix: str, *, revision: int = 0) -> Listing:
        self._check_up()
        self.lists += 1
        return super().list(prefix, revision=revision)

    def get(self, key: str) -> Item | None:
        self._check_up()
        return super().get(key)

    def commit(self, txn: Txn) -> Committed:
        self._check_up()
        done = super().commit(txn)
        if self.lost:
            self.lost -= 1
            raise OutcomeUnknown("failed to learn the outcome of a write: no answer in time")
        return done

    def watch(self, prefix: str, *, from_revision: int) -> Watch:
        self._check_up()
        self._watches.append(super().watch(prefix, from_revision=from_revision))
        return self._watches[-1]

    def keep_lease(self, lease_id: int) -> int:
        self._check_up()
        return super().keep_lease(lease_id)

    def _check_up(self) -> None:
        if self.down.is_set():
            self.refused += 1
            raise StoreUnavailable("failed to reach etcd: it is down")


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.01)


def put(store: FailingStore, key: str, value: bytes = b"") -> int:
    return store.commit(Txn((), (Put(key, value),))).revision


def test_a_cache_keeps_what_it_has_and_goes_on_where_it_was() -> None:
    store, clock = FailingStore(), ManualClock()
    cache: Cache[Item] = Cache(store, ["a/"], clock=clock)
    cache.start()
    wait_until(lambda: cache.age_s() == 0)
    store.fail()
    wait_until(lambda: store.refused > 0)
    clock.now_s += 7
    assert cache.age_s() == 7
    assert len(cache.snapshot().items) == 0
    store.down.clear()
    revision = put(store, "a/1")
    wait_until(lambda: cache.snapshot().revision >= revision)
    assert (list(cache.snapshot().items), cache.age_s()) == (["a/1"], 0)
    assert store.lists == 1  # resumed, not listed again
    cache.stop()


def test_a_cache_waits_for_a_store_that_is_not_there_yet() -> None:
    store = FailingStore()
    store.down.set()
    cache: Cache[Item] = Cache(store, ["a/"])
    cache.start()
    wait_until(lambda: store.refused > 0)
    store.down.clear()
    assert dict(cache.wait_for(0, 5).items) == {}
    cache.stop()


def test_a_candidate_whose_commit_got_no_answer_reads_what_became_of_it() -> None:
    store = FailingStore()
    store.lost = 1
    election = Election(store, "x", "one")
    assert election.campaign(threading.Event())
    assert store.commit(Txn((election.guard(),), (Put("plan", b""),))).ok
    election.resign()
    assert store.list("").items == (store.get("plan"),)


def test_a_leader_without_its_store_stops_leading_in_time() -> None:
    store = FailingStore()
    lost = threading.Event()
    election = Election(store, "x", "one", ttl_s=1, on_lost=lost.set)
    assert election.campaign(threading.Event())
    started_s = time.monotonic()
    store.fail()
    assert lost.wait(5)
    assert time.monotonic() - started_s < 1.5
    assert not election.is_leader
    store.down.clear()
    assert election.campaign(threading.Event())
    assert election.is_leader
    election.resign()


def test_a_blip_shorter_than_the_lease_changes_nothing() -> None:
    store = FailingStore()
    lost = threading.Event()
    election = Election(store, "x", "one", ttl_s=4, on_lost=lost.set)
    assert election.campaign(threading.Event())
    store.fail()
    assert not lost.wait(1.2)
    store.down.clear()
    assert not lost.wait(1.2)
    assert election.is_leader
    election.resign()


def test_decoding_reads_each_version_once() -> None:
    def decode(item: Item) -> str:
        seen.append(item.value)
        return item.value.decode()

    seen: list[bytes] = []
    store = FailingStore()
    put(store, "a/1", b"x")
    cache = Cache(store, ["a/"], decode)
    cache.start()
    cache.wait_for(put(store, "a/2", b"y"), 5)
    cache.wait_for(put(store, "elsewhere", b""), 5)  # lists again: the values are the same
    assert cache.snapshot().values_under("a/") == ["x", "y"]
    assert seen == [b"x", b"y"]
    cache.stop()


def test_waiting_for_news_lists_nothing() -> None:
    store = FailingStore()
    cache: Cache[Item] = Cache(store, ["a/"])
    cache.start()
    revision = cache.wait_for(0, 5).revision
    for _ in range(5):
        assert cache.next_snapshot(revision, 0.1).revision == revision
    assert store.lists == 1
    put(store, "a/1")
    assert list(cache.next_snapshot(revision, 5).items) == ["a/1"]
    cache.stop()


def test_waiting_for_revisions_lists_at_most_once_a_second() -> None:
    store = FailingStore()
    cache: Cache[Item] = Cache(store, ["a/"])
    cache.start()
    never = cache.wait_for(0, 5).revision + 1000
    started_s = time.monotonic()
    threads = [threading.Thread(target=_wait_in_vain, args=(cache, never, 1.6)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 <= store.lists <= 2 + (time.monotonic() - started_s)
    cache.stop()


def _wait_in_vain(cache: Cache[Item], revision: int, timeout_s: float) -> None:
    with pytest.raises(DeadlineExceeded):
        cache.wait_for(revision, timeout_s)


def test_a_mistake_does_not_end_the_cache(caplog: pytest.LogCaptureFixture) -> None:
    """A callback or a store that raises what it should not: said in the log, and all is listed again."""
    store = FailingStore()
    cache: Cache[Item] = Cache(store, ["a/"])
    mistakes = iter([ValueError("one"), KeyError("two")])

    def wake(_: object) -> None:
        if (mistake := next(mistakes, None)) is not None:
            raise mistake

    cache.on_change(wake)
    cache.start()
    for name in ("a/1", "a/2", "a/3"):
        revision = put(store, name)
        assert name in cache.wait_for(revision, 5).items
    wait_until(lambda: "a/3" in cache.snapshot().items)
    assert "Traceback" in caplog.text
    cache.stop()
