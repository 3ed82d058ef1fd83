"""One of several processes is the leader: the one whose key under ``election/<name>/`` was created first.

Owns a lease, a key on it and a thread that renews it. Must hold: a lease is only detection, never safety, so
everything that only a leader may write compares ``guard()`` in the same transaction: a leader that lost its
key without knowing cannot write any more. The key holds a random token, not the lease id, which is secret.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ucloud.errors import Conflict, OutcomeUnknown, StoreError, Unavailable
from ucloud.store import keys
from ucloud.store.api import Compare, Item, Put, Store, Txn, Watch, absent, created_at
from ucloud.system.clock import Clock, SystemClock, format_time

_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class _Candidacy:
    """Our place in the queue."""

    key: str
    create_revision: int
    lease: int
    ttl_s: int


class Election:
    """Used by one loop: ``campaign``, work while ``is_leader``, ``campaign`` again. ``on_lost`` wakes the loop."""

    def __init__(
        self,
        store: Store,
        name: str,
        identity: str,
        *,
        ttl_s: int = 2,
        clock: Clock | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._name = name
        self._identity = identity
        self._ttl_s = ttl_s
        self._clock = clock if clock else SystemClock()
        self._on_lost = on_lost
        self._lock = threading.RLock()
        self._candidacy: _Candidacy | None = None
        self._valid_until_s = 0.0
        self._leading = False
        self._old_lease = 0
        self._watch: Watch | None = None
        self._over = threading.Event()  # the present candidacy has ended
        self._keeper: threading.Thread | None = None

    @property
    def is_leader(self) -> bool:
        """Whether we lead as far as we know; ``guard`` is what makes it sure."""
        with self._lock:
            return self._leading and self._clock.monotonic_s() < self._valid_until_s

    def guard(self) -> Compare:
        """Holds while our leadership does: add it to every transaction of a leader. Raises Conflict."""
        with self._lock:
            if self._candidacy is None or not self._leading:
                raise Conflict(f"failed to act as leader of {self._name}: it is not us", code="not_leader")
            return created_at(self._candidacy.key, self._candidacy.create_revision)

    def campaign(self, stop: threading.Event) -> bool:
        """Wait until we lead (True) or ``stop`` is set (False). An unreachable store is waited for."""
        while not stop.is_set():
            try:
                candidacy = self._candidacy or self._stand(stop)
                if self._wait_for_turn(candidacy, stop):
                    return True
            except (Unavailable, StoreError):
                stop.wait(_PAUSE_S)
        self.resign()
        return False

    def resign(self) -> None:
        """Step down and leave the queue; if the store cannot be told, the lease ends by itself."""
        self._end(self._candidacy)
        keeper, self._keeper = self._keeper, None
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join()
        with contextlib.suppress(Unavailable, StoreError):
            self._leave_queue()

    def _stand(self, stop: threading.Event) -> _Candidacy:
        """Enter the queue, with a key on a new lease and a thread that keeps it."""
        self._leave_queue()
        sent_s = self._clock.monotonic_s()
        lease = self._store.grant_lease(self._ttl_s)
        self._old_lease = lease.id
        key = keys.election(self._name) + secrets.token_hex(16)
        value = json.dumps({"identity": self._identity, "since": format_time(self._clock.now())}).encode()
        try:
            revision = self._store.commit(Txn((absent(key),), (Put(key, value, lease.id),))).revision
        except OutcomeUnknown:
            item = self._store.get(key)
            if item is None:
                raise
            revision = item.create_revision
        candidacy = _Candidacy(key, revision, lease.id, lease.ttl_s)
        over = threading.Event()
        with self._lock:
            self._over = over
            self._candidacy, self._valid_until_s = candidacy, sent_s + lease.ttl_s
        self._keeper = threading.Thread(
            target=self._keep, args=(candidacy, over, stop), name=f"election-{self._name}", daemon=True
        )
        self._keeper.start()
        return candidacy

    def _leave_queue(self) -> None:
        """End the lease of the last candidacy, so that nobody, not even we, waits behind its key."""
        if self._old_lease:
            self._store.revoke_lease(self._old_lease)
            self._old_lease = 0

    def _wait_for_turn(self, candidacy: _Candidacy, stop: threading.Event) -> bool:
        while not (stop.is_set() or self._over.is_set()):
            listing = self._store.list(keys.election(self._name))
            if not any(_is(item, candidacy) for item in listing.items):
                self._end(candidacy)
                return False
            ahead = [item for item in listing.items if item.create_revision < candidacy.create_revision]
            if not ahead:
                with self._lock:
                    self._leading = self._candidacy is candidacy
                    return self._leading
            before_us = max(ahead, key=lambda item: item.create_revision)
            self._wait_for_change(before_us.key, listing.revision + 1, stop)
        return False

    def _wait_for_change(self, key: str, from_revision: int, stop: threading.Event) -> None:
        watch = self._store.watch(key, from_revision=from_revision)
        with self._lock:
            self._watch = watch
            if self._over.is_set():
                watch.close()
        try:
            for batch in watch:
                if batch.events or stop.is_set():
                    return
        finally:
            watch.close()
            with self._lock:
                self._watch = None

    def _keep(self, candidacy: _Candidacy, over: threading.Event, stop: threading.Event) -> None:
        """Renew until the candidacy is over or no renewal came in time."""
        while not over.wait(candidacy.ttl_s / 4):
            if stop.is_set():
                self._close_watch()
            sent_s = self._clock.monotonic_s()
            try:
                # A stale leader of etcd acknowledges renewals without end; only the read proves that we stand.
                kept = self._store.keep_lease(candidacy.lease) > 0 and _is(self._store.get(candidacy.key), candidacy)
            except (Unavailable, StoreError):
                kept = self._clock.monotonic_s() < self._valid_until_s
            else:
                with self._lock:
                    if over.is_set():
                        return
                    self._valid_until_s = sent_s + candidacy.ttl_s
            if not kept:
                self._end(candidacy)
                return

    def _end(self, candidacy: _Candidacy | None) -> None:
        """The candidacy is over: nobody acts on it any more, and who waits is woken."""
        with self._lock:
            if candidacy is None or candidacy is not self._candidacy:
                return
            was_leading, self._leading = self._leading, False
            self._candidacy = None
            self._over.set()
            self._close_watch()
        if was_leading and self._on_lost is not None:
            self._on_lost()

    def _close_watch(self) -> None:
        with self._lock:
            if self._watch is not None:
                self._watch.close()


def _is(item: Item | None, candidacy: _Candidacy) -> bool:
    """Whether ``item`` is the very key that we created."""
    return item is not None and item.key == candidacy.key and item.create_revision == candidacy.create_revision
