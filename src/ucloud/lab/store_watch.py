"""The store's part of a history: every change of what safety rests on, with its revision, as long as a member answers.

An outage of etcd is waited out; what changed meanwhile comes from the watch's history, and if that was compacted from
a new listing, compared with the revisions that are known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ucloud.config import StoreSection
from ucloud.errors import Compacted, Error
from ucloud.store import keys
from ucloud.store.api import EventKind, Item, Watch, WatchEvent
from ucloud.store.codec import decode, to_plain
from ucloud.store.connect import open_store

WATCHED = (
    keys.locks(),
    keys.placements(),
    keys.alive_all(),
    keys.registered_all(),
    keys.fenced_all(),
    keys.takeovers(),
    keys.migrations(),
)
_PAUSE_S = 0.2
_FACTS = {
    "host_id": "host",
    "vm_id": "vm",
    "incarnation": "incarnation",
    "generation": "generation",
    "phase": "phase",
    "reason": "reason",
    "failover": "failover",
    "fence_s": "fence_s",
    "source": "from_host",
    "target": "to_host",
}

Note = Callable[..., None]


class StoreWatch:
    """Notes from a thread of its own between ``start`` and ``stop``."""

    def __init__(self, settings: StoreSection, note: Note) -> None:
        self._settings = settings
        self._note = note
        self._revisions: dict[str, int] = {}
        self._stopping = threading.Event()
        self._watch: Watch | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="store-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        self._thread.join(5.0)

    def _run(self) -> None:
        store = open_store(self._settings)
        next_revision = 0
        while not self._stopping.wait(_PAUSE_S):
            try:
                if not next_revision:
                    listing = store.list(keys.ROOT)
                    self._compare(listing.items, listing.revision)
                    next_revision = listing.revision + 1
                with self._lock:
                    self._watch = store.watch(keys.ROOT, from_revision=next_revision)
                    if self._stopping.is_set():
                        break
                for batch in self._watch:
                    for event in batch.events:
                        self._tell(event)
                    next_revision = max(next_revision, batch.revision + 1)
            except Compacted:
                next_revision = 0
            except Error:
                continue
        store.close()

    def _compare(self, items: tuple[Item, ...], revision: int) -> None:
        there = {item.key: item for item in items if item.key.startswith(WATCHED)}
        for key in sorted(self._revisions.keys() - there.keys()):
            self._deleted(key, revision)
        for item in sorted(there.values(), key=lambda item: item.mod_revision):
            if self._revisions.get(item.key) != item.mod_revision:
                self._put(item)

    def _tell(self, event: WatchEvent) -> None:
        if not event.item.key.startswith(WATCHED):
            return
        if event.kind is EventKind.DELETE:
            self._deleted(event.item.key, event.item.mod_revision)
        else:
            self._put(event.item)

    def _put(self, item: Item) -> None:
        self._revisions[item.key] = item.mod_revision
        self._note("store_put", key=item.key, revision=item.mod_revision, **facts_of(item.value))

    def _deleted(self, key: str, revision: int) -> None:
        self._revisions.pop(key, None)
        self._note("store_delete", key=key, revision=revision)


def facts_of(value: bytes) -> dict[str, Any]:
    """What a checker reads of a stored value. One that cannot be read says so. Pure."""
    try:
        plain = to_plain(decode(value))
    except Error as error:
        return {"unreadable": error.message}
    return {name: plain[field] for field, name in _FACTS.items() if isinstance(plain.get(field), str | int | float)}
