"""A copy of some prefixes in this process, fed by one watch: list, then watch from there; compacted: list again.

Owns one thread between ``start`` and ``stop`` (start it after any fork). One watch covers the longest common
prefix of all prefixes, so every snapshot is the state as of exactly one revision, and any commit below it
moves the cache on. Must hold: a snapshot never changes; a value that cannot be decoded stops nothing.
"""

from __future__ import annotations

import logging
import math
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Generic, TypeVar, cast

from ucloud.errors import Compacted, DeadlineExceeded, Error, InvalidInput, StoreError, StoreUnavailable
from ucloud.store.api import EventKind, Item, Store, Watch, WatchBatch, WatchEvent
from ucloud.store.layers import Table
from ucloud.system.clock import Clock, SystemClock

T = TypeVar("T")
_log = logging.getLogger(__name__)

_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
_REFRESH_AFTER_S = 0.25  # a revision that touches none of our keys never arrives: then list again
_REFRESH_EVERY_S = 1.0  # at most: a listing is expensive, and many may wait
_DECODING_ERRORS = (Error, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """What was under the prefixes at ``revision``. ``broken`` says of keys why their value is not in ``values``.

    The mappings are in no order; ``under`` and its sisters are sorted by key.
    """

    revision: int
    items: Mapping[str, Item]
    values: Mapping[str, T]
    broken: Mapping[str, str]
    _keys: Sequence[str] = field(repr=False)

    def under(self, prefix: str) -> list[Item]:
        """The items under ``prefix``, sorted by key."""
        return [self.items[key] for key in self.keys_under(prefix)]

    def values_under(self, prefix: str) -> list[T]:
        """The decoded values under ``prefix``, sorted by key, without the broken ones."""
        return [self.values[key] for key in self.keys_under(prefix) if key in self.values]

    def keys_under(self, prefix: str) -> Sequence[str]:
        start = bisect_left(self._keys, prefix)
        end = bisect_left(self._keys, prefix + chr(0x10FFFF), start)
        return self._keys[start:end]


class Cache(Generic[T]):
    """Thread-safe. Without ``decode`` the values are the items themselves."""

    def __init__(
        self,
        store: Store,
        prefixes: Sequence[str],
        decode: Callable[[Item], T] | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        if not prefixes:
            raise InvalidInput("failed to make a cache: no prefix is given", field="prefixes")
        self._store = store
        self._prefixes = _without_nested(prefixes)
        self._watched = _common_prefix(self._prefixes)
        self._decode = decode
        self._clock = clock if clock else SystemClock()
        self._changed = threading.Condition()
        self._items: Table[Item] = Table()
        self._values: Table[T] = Table()
        self._broken: dict[str, str] = {}
        self._keys: list[str] = []  # sorted
        self._frozen_keys: tuple[str, ...] = ()  # empty: to be copied
        self._revision = 0
        self._current_at_s = -math.inf
        self._snapshot: Snapshot[T] | None = None
        self._callbacks: list[Callable[[Sequence[WatchEvent]], None]] = []
        self._watch: Watch | None = None
        self._list_again = True
        self._failures = 0
        self._refreshed_s = -math.inf
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def on_change(self, callback: Callable[[Sequence[WatchEvent]], None]) -> None:
        """Call ``callback`` from the cache's thread after each change. It only wakes somebody: it must not block
        and not raise."""
        self._callbacks.append(callback)

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="store-cache", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._end_watch()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def snapshot(self) -> Snapshot[T]:
        """The newest state. Raises StoreUnavailable before the first listing has come."""
        with self._changed:
            if self._revision == 0:
                raise StoreUnavailable("failed to read the cache: the store has not answered yet")
            if self._snapshot is None:
                # Frozen when asked for, not per event: a burst of changes costs one copy.
                items = self._items.frozen()
                values = cast(Mapping[str, T], items) if self._decode is None else self._values.frozen()
                broken = MappingProxyType(dict(self._broken))
                self._frozen_keys = self._frozen_keys or tuple(self._keys)
                self._snapshot = Snapshot(self._revision, items, values, broken, self._frozen_keys)
            elif self._snapshot.revision != self._revision:
                self._snapshot = replace(self._snapshot, revision=self._revision)
            return self._snapshot

    def wait_for(self, revision: int, timeout_s: float) -> Snapshot[T]:
        """A snapshot that holds all changes up to ``revision``, which the store has reached (0: the first snapshot).

        Raises DeadlineExceeded.
        """
        start_s = self._clock.monotonic_s()
        end_s, refresh_s = start_s + timeout_s, start_s + _REFRESH_AFTER_S
        with self._changed:
            while self._revision < max(revision, 1):
                now_s = self._clock.monotonic_s()
                if now_s >= end_s:
                    raise DeadlineExceeded(f"failed to wait for revision {revision}: the cache is at {self._revision}")
                if now_s >= refresh_s:
                    refresh_s = self._refresh(now_s)
                self._changed.wait(min(end_s, refresh_s) - now_s)
            return self.snapshot()

    def next_snapshot(self, after: int, timeout_s: float) -> Snapshot[T]:
        """The newest snapshot, at once if it is newer than revision ``after``, else when one comes or time is over."""
        end_s = self._clock.monotonic_s() + timeout_s
        with self._changed:
            while self._revision <= after and (left_s := end_s - self._clock.monotonic_s()) > 0:
                self._changed.wait(left_s)
            return self.snapshot()

    def age_s(self) -> float:
        """Seconds since the cache last heard from the store (every 3 s if all is well); infinite at first."""
        with self._changed:
            return self._clock.monotonic_s() - self._current_at_s

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._list_again:
                    self._fill()
                self._follow()
            except Compacted:
                self._list_again = True
            except (StoreUnavailable, StoreError) as error:
                # The next pass is the only retry; ``age_s`` shows that the copy gets old.
                if not self._failures:
                    _log.warning("the cache of %s waits for the store: %s", self._watched, error)
                self._pause()
            except Exception:  # noqa: BLE001
                # The main of a thread on which its whole process depends: ended, it would leave a copy that gets
                # old while everything looks well. What the mistake left half done is not trusted.
                _log.exception("the cache of %s made a mistake and lists everything again", self._watched)
                self._forget()
                self._pause()

    def _pause(self) -> None:
        self._failures += 1
        self._stopping.wait(_BACKOFF_S[min(self._failures, len(_BACKOFF_S)) - 1])

    def _forget(self) -> None:
        """As before the first listing: nothing is shown until the store has answered."""
        with self._changed:
            self._items, self._values, self._broken = Table(), Table(), {}
            self._keys, self._frozen_keys, self._snapshot = [], (), None
            self._revision, self._list_again = 0, True

    def _fill(self) -> None:
        """List everything as of one revision and take it over."""
        self._list_again = False
        try:
            first = self._store.list(self._prefixes[0])
            others = [self._store.list(prefix, revision=first.revision) for prefix in self._prefixes[1:]]
        except BaseException:
            self._list_again = True
            raise
        listed = {item.key: item for listing in (first, *others) for item in listing.items}
        held = self._items.frozen()  # only this thread changes it
        gone = sorted(held.keys() - listed.keys())
        events = [WatchEvent(EventKind.PUT, item) for key, item in listed.items() if held.get(key) != item]
        events += [WatchEvent(EventKind.DELETE, Item(key, b"", first.revision, 0, version=0)) for key in gone]
        self._take_over(WatchBatch(first.revision, tuple(events)))

    def _follow(self) -> None:
        watch = self._store.watch(self._watched, from_revision=self._revision + 1)
        with self._changed:
            self._watch = watch
            if self._stopping.is_set() or self._list_again:
                watch.close()
        try:
            for batch in watch:
                self._take_over(batch)
        finally:
            watch.close()
            with self._changed:
                self._watch = None

    def _refresh(self, now_s: float) -> float:
        """Have everything listed again: the only way to pass revisions that the watch does not show.

        Returns when that may be done again.
        """
        if now_s >= self._refreshed_s + _REFRESH_EVERY_S:
            self._refreshed_s = now_s
            self._list_again = True
            self._end_watch()
        return self._refreshed_s + _REFRESH_EVERY_S

    def _end_watch(self) -> None:
        with self._changed:
            if self._watch is not None:
                self._watch.close()

    def _take_over(self, batch: WatchBatch) -> None:
        ours = [event for event in batch.events if event.item.key.startswith(self._prefixes)]
        decoded = [self._try_decode(event) for event in ours]
        with self._changed:
            for event, (value, reason) in zip(ours, decoded, strict=True):
                self._change(event, value, reason)
            self._revision = batch.revision
            self._current_at_s = self._clock.monotonic_s()
            self._failures = 0
            if ours:
                self._snapshot = None
            self._changed.notify_all()
        if ours:
            for callback in self._callbacks:
                callback(ours)

    def _change(self, event: WatchEvent, value: T | None, reason: str) -> None:
        key = event.item.key
        self._values.remove(key)
        self._broken.pop(key, None)
        known = key in self._items
        if known == (event.kind is EventKind.DELETE):
            self._frozen_keys = ()
        if event.kind is EventKind.DELETE:
            if known:
                del self._keys[bisect_left(self._keys, key)]
            self._items.remove(key)
            return
        if not known:
            insort(self._keys, key)
        self._items.put(key, event.item)
        if reason:
            self._broken[key] = reason
        elif self._decode is not None:
            self._values.put(key, cast(T, value))

    def _try_decode(self, event: WatchEvent) -> tuple[T | None, str]:
        if self._decode is None or event.kind is EventKind.DELETE:
            return None, ""
        try:
            return self._decode(event.item), ""
        except _DECODING_ERRORS as error:
            return None, f"{type(error).__name__}: {error}"


def _without_nested(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Sorted, without those that another one covers."""
    kept: list[str] = []
    for prefix in sorted(set(prefixes)):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept)


def _common_prefix(prefixes: Sequence[str]) -> str:
    """The deepest folder that holds all of the sorted prefixes; a single prefix is its own."""
    first, last = prefixes[0], prefixes[-1]
    if len(prefixes) == 1:
        return first
    shared = next(index for index, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: first.rfind("/", 0, shared) + 1]
