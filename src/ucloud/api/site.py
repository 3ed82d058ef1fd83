"""What every handler is given: the settings, the store, the cache and the parts behind them. No globals.

Owns the newest view of the cache's snapshot, made once per change and shared by all requests.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

from ucloud.api.probe import StoreProbe
from ucloud.api.transfers import Transfers
from ucloud.config import Config
from ucloud.errors import DeadlineExceeded
from ucloud.model.event import Event
from ucloud.storage.pool import Pool
from ucloud.store import keys
from ucloud.store.api import Item, Store
from ucloud.store.cache import Cache, Snapshot
from ucloud.store.codec import decode
from ucloud.store.view import PREFIXES, View, build_view
from ucloud.system.clock import Clock, format_time

SCHEDULER_ELECTION = "scheduler"
CACHED_PREFIXES = (*PREFIXES, keys.events(), keys.election(SCHEDULER_ELECTION))
_CACHE_WAIT_S = 2.0


class Door(Protocol):
    """The read-only door of a host's agent."""

    def serial_log(self, url: str, vm_id: str, tail_bytes: int) -> bytes:
        """The end of a VM's serial log. Raises Unavailable or NotFound."""
        ...


def decode_item(item: Item) -> Any:
    """The cache's decoder: candidates of an election are none of our values."""
    if item.key.startswith(keys.election(SCHEDULER_ELECTION)):
        return item.key
    return decode(item.value)


def make_cache(store: Store, clock: Clock) -> Cache[Any]:
    """Everything that answers are made of; start it after any fork."""
    return Cache(store, CACHED_PREFIXES, decode_item, clock=clock)


def view_of(snapshot: Snapshot[Any]) -> View:
    """Without the events, which are many."""
    found = (key for prefix in PREFIXES for key in snapshot.keys_under(prefix) if key in snapshot.values)
    return build_view(
        snapshot.revision, ((key, snapshot.values[key], snapshot.items[key].mod_revision) for key in found)
    )


@dataclass(slots=True)
class Site:
    """``probe`` tells whether the store answers; ``token`` is what clients must send; ``transfers`` are of images."""

    config: Config
    store: Store
    cache: Cache[Any]
    pool: Pool
    clock: Clock
    door: Door
    token: bytes
    probe: StoreProbe
    transfers: Transfers
    _view: tuple[Snapshot[Any], View] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def view(self) -> View:
        """The newest state. Raises StoreUnavailable until the cache has been filled."""
        snapshot = self.cache.snapshot()
        with self._lock:
            if self._view is None or self._view[0] is not snapshot:
                self._view = snapshot, view_of(snapshot)
            return self._view[1]

    def events(self) -> tuple[list[Event], int]:
        """All events, oldest first, and the revision they are of."""
        snapshot = self.cache.snapshot()
        return snapshot.values_under(keys.events()), snapshot.revision

    def has_scheduler(self) -> bool:
        return bool(self.cache.snapshot().keys_under(keys.election(SCHEDULER_ELECTION)))

    def catch_up(self, revision: int) -> None:
        """Wait until lists show ``revision``; a slow cache only makes them late, not wrong."""
        try:
            self.cache.wait_for(revision, _CACHE_WAIT_S)
        except DeadlineExceeded:
            return

    def now(self) -> str:
        return format_time(self.clock.now())
