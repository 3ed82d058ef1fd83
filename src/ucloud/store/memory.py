"""The store in this process's memory, for pure tests and simulations: the same contract as etcd, no machine.

Keeps the whole history since the last ``compact``. Must hold: passes the contract suite that real etcd passes;
leases end by the clock that was passed in, looked at on every access.
"""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ucloud.errors import Compacted, StoreError, StoreUnavailable
from ucloud.store.api import (
    LEASE_ENDED,
    Committed,
    Compare,
    Delete,
    EventKind,
    Item,
    Lease,
    Listing,
    Put,
    Reading,
    Target,
    Txn,
    Watch,
    WatchBatch,
    WatchEvent,
)
from ucloud.system.clock import Clock, SystemClock

MAX_WRITES = 1024
MAX_REQUEST_BYTES = 1_572_864
_SIGN_OF_LIFE_S = 3.0
_LEASE_CHECK_S = 0.1  # how often a waiting watch looks whether a lease has ended


@dataclass(slots=True)
class _Lease:
    ttl_s: int
    ends_s: float
    keys: set[str] = field(default_factory=set)


class MemoryStore:
    """Fulfils ``Store``. Thread-safe."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock if clock else SystemClock()
        self._changed = threading.Condition()
        self._revision = 1
        self._compacted = 0
        self._keys: list[str] = []  # every key with a history, sorted
        self._history: dict[str, list[Item | None]] = {}  # None: deleted, at the revision beside it
        self._revisions: dict[str, list[int]] = {}
        self._log: list[WatchBatch] = []
        self._leases: dict[int, _Lease] = {}
        self._closed = False
        self.term = 1  # simulations raise it for a new leader

    def get(self, key: str) -> Item | None:
        with self._changed:
            self._refresh()
            _check_key(key)
            return self._at(key, self._revision)

    def read(self, wanted: Sequence[str]) -> Reading:
        with self._changed:
            self._refresh()
            return Reading({key: self._at(key, self._revision) for key in wanted}, self._revision, self.term)

    def list(self, prefix: str, *, revision: int = 0) -> Listing:
        with self._changed:
            self._refresh()
            if revision > self._revision:
                raise StoreError("failed to list: the revision is in the future")
            if 0 < revision < self._compacted:
                raise Compacted(f"failed to list {prefix}: the revision is compacted", hint="list again")
            at = revision or self._revision
            found = (self._at(key, at) for key in self._under(prefix))
            return Listing(tuple(item for item in found if item is not None), at)

    def commit(self, txn: Txn) -> Committed:
        with self._changed:
            self._refresh()
            self._check(txn)
            if not all(_holds(compare, self._at(compare.key, self._revision)) for compare in txn.compares):
                return Committed(False, self._revision, self.term)
            self._write(txn.writes)
            return Committed(True, self._revision, self.term)

    def watch(self, prefix: str, *, from_revision: int) -> Watch:
        with self._changed:
            self._refresh()
            return MemoryWatch(self, prefix, from_revision or self._revision + 1)

    def grant_lease(self, ttl_s: int) -> Lease:
        with self._changed:
            self._refresh()
            lease_id, ttl_s = secrets.randbits(62) + 1, max(1, ttl_s)
            self._leases[lease_id] = _Lease(ttl_s, self._clock.monotonic_s() + ttl_s)
            return Lease(lease_id, ttl_s)

    def keep_lease(self, lease_id: int) -> int:
        with self._changed:
            self._refresh()
            lease = self._leases.get(lease_id)
            if lease is None:
                return 0
            lease.ends_s = self._clock.monotonic_s() + lease.ttl_s
            return lease.ttl_s

    def revoke_lease(self, lease_id: int) -> None:
        with self._changed:
            self._refresh()
            self._end_lease(lease_id)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def compact(self, revision: int) -> None:
        """Forget what was before ``revision``: listings and watches from there raise Compacted."""
        with self._changed:
            if not self._compacted < revision <= self._revision:
                raise StoreError("failed to compact: the revision is compacted already or in the future")
            self._compacted = revision
            self._log = [batch for batch in self._log if batch.revision >= revision]
            for key in list(self._history):
                self._trim(key, revision)

    def wait_for_batch(self, watch: MemoryWatch) -> WatchBatch | None:
        """The next batch for ``watch``, or None when it is closed."""
        with self._changed:
            quiet_s = 0.0
            while not (watch.closed or self._closed):
                self._refresh()
                batch = self._next_batch(watch)
                if batch is not None:
                    return batch
                if quiet_s >= _SIGN_OF_LIFE_S:
                    return WatchBatch(max(self._revision, watch.next_revision - 1))
                if not self._changed.wait(_LEASE_CHECK_S):
                    quiet_s += _LEASE_CHECK_S
            return None

    def close_watch(self, watch: MemoryWatch) -> None:
        with self._changed:
            watch.closed = True
            self._changed.notify_all()

    def _next_batch(self, watch: MemoryWatch) -> WatchBatch | None:
        if watch.next_revision < self._compacted:
            raise Compacted(f"failed to watch {watch.prefix}: the revision is compacted", hint="list again")
        start = bisect_left(self._log, watch.next_revision, key=lambda batch: batch.revision)
        for index in range(start, len(self._log)):
            batch = self._log[index]
            watch.next_revision = batch.revision + 1
            events = tuple(event for event in batch.events if event.item.key.startswith(watch.prefix))
            if events:
                return WatchBatch(batch.revision, events)
        return None

    def _refresh(self) -> None:
        if self._closed:
            raise StoreUnavailable("failed to use the store: it is closed")
        now_s = self._clock.monotonic_s()
        for lease_id in [key for key, lease in self._leases.items() if lease.ends_s <= now_s]:
            self._end_lease(lease_id)

    def _end_lease(self, lease_id: int) -> None:
        lease = self._leases.pop(lease_id, None)
        if lease is not None:
            self._write(tuple(Delete(key) for key in sorted(lease.keys)))

    def _check(self, txn: Txn) -> None:
        for key in (*(compare.key for compare in txn.compares), *(write.key for write in txn.writes)):
            _check_key(key)
        if max(len(txn.compares), len(txn.writes)) > MAX_WRITES:
            raise StoreError(f"failed to commit: more than {MAX_WRITES} compares or writes")
        puts = [write for write in txn.writes if isinstance(write, Put)]
        if sum(len(put.key.encode()) + len(put.value) for put in puts) > MAX_REQUEST_BYTES:
            raise StoreError("failed to commit: the request is too large")
        if len({write.key for write in txn.writes}) < len(txn.writes):
            raise StoreError("failed to commit: a key is written twice")

    def _write(self, writes: tuple[Put | Delete, ...]) -> None:
        for write in writes:
            if isinstance(write, Put) and write.lease and write.lease not in self._leases:
                raise StoreError("failed to use a lease: it has ended", code=LEASE_ENDED)
        events = []
        for write in writes:
            old = self._at(write.key, self._revision)
            if isinstance(write, Put):
                events.append(WatchEvent(EventKind.PUT, self._put(write, old)))
            elif old is not None:
                events.append(WatchEvent(EventKind.DELETE, self._delete(old)))
        if events:
            self._revision += 1
            self._log.append(WatchBatch(self._revision, tuple(events)))
            self._changed.notify_all()

    def _put(self, write: Put, old: Item | None) -> Item:
        revision = self._revision + 1
        created, version = (old.create_revision, old.version + 1) if old else (revision, 1)
        item = Item(write.key, write.value, revision, created, version, write.lease)
        self._move_lease(write.key, old.lease if old else 0, write.lease)
        self._remember(write.key, item)
        return item

    def _delete(self, old: Item) -> Item:
        self._move_lease(old.key, old.lease, 0)
        self._remember(old.key, None)
        return Item(old.key, b"", self._revision + 1, 0, version=0)

    def _move_lease(self, key: str, old: int, new: int) -> None:
        if old in self._leases:
            self._leases[old].keys.discard(key)
        if new:
            self._leases[new].keys.add(key)

    def _remember(self, key: str, item: Item | None) -> None:
        if key not in self._history:
            self._keys.insert(bisect_left(self._keys, key), key)
            self._history[key], self._revisions[key] = [], []
        self._history[key].append(item)
        self._revisions[key].append(self._revision + 1)

    def _trim(self, key: str, revision: int) -> None:
        """Forget what ``key`` was before ``revision``; all of it if it was deleted by then."""
        first = max(bisect_right(self._revisions[key], revision) - 1, 0)
        if self._history[key][first] is None and first == len(self._history[key]) - 1:
            del self._keys[bisect_left(self._keys, key)], self._history[key], self._revisions[key]
        else:
            del self._history[key][:first], self._revisions[key][:first]

    def _at(self, key: str, revision: int) -> Item | None:
        index = bisect_right(self._revisions.get(key, []), revision)
        return self._history[key][index - 1] if index else None

    def _under(self, prefix: str) -> Iterator[str]:
        for index in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[index].startswith(prefix):
                return
            yield self._keys[index]


class MemoryWatch:
    """An open watch on a MemoryStore."""

    def __init__(self, store: MemoryStore, prefix: str, from_revision: int) -> None:
        self._store = store
        self.prefix = prefix
        self.next_revision = from_revision
        self.closed = False

    def __iter__(self) -> Iterator[WatchBatch]:
        while (batch := self._store.wait_for_batch(self)) is not None:
            yield batch

    def close(self) -> None:
        self._store.close_watch(self)


def _check_key(key: str) -> None:
    if not key:
        raise StoreError("failed to use a key: it is empty")


def _holds(compare: Compare, item: Item | None) -> bool:
    match compare.target:
        case Target.MOD:
            return compare.revision == (item.mod_revision if item else 0)
        case Target.CREATE:
            return compare.revision == (item.create_revision if item else 0)
