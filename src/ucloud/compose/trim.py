"""Bounds for what only ever grows: events after their days, idempotency keys after their hours, takeovers' marks."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from ucloud.errors import StoreError
from ucloud.model.claim import Claim
from ucloud.model.guard import Fenced
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Item, Store, Txn, unchanged
from ucloud.store.codec import decode_as
from ucloud.store.view import Entry

BATCH_DELETES = 100


def trim_history(
    store: Store, *, now: datetime.datetime, events: datetime.timedelta, requests: datetime.timedelta, leader: Compare
) -> int:
    """Delete what is older than its time; the number that was deleted."""
    old = old_events(store.list(keys.events()).items, now - events)
    old += old_requests(store.list(keys.claims("request")).items, now - requests)
    for start in range(0, len(old), BATCH_DELETES):
        batch = tuple(Delete(key) for key in old[start : start + BATCH_DELETES])
        store.commit(Txn((leader,), batch))
    return len(old)


def trim_marks(store: Store, marks: Sequence[Entry[Fenced]], *, leader: Compare) -> None:
    """Delete marks that nothing needs any more, as ``plan_old_marks`` found them."""
    for start in range(0, len(marks), BATCH_DELETES):
        batch = marks[start : start + BATCH_DELETES]
        compares = (leader, *(unchanged(mark.key, mark.mod_revision) for mark in batch))
        store.commit(Txn(compares, tuple(Delete(mark.key) for mark in batch)))


def old_events(items: Sequence[Item], before: datetime.datetime) -> list[str]:
    """Keys of events that happened before; the time is the first part of an event's id."""
    limit = keys.event(f"{int(before.timestamp() * 1000):012x}")
    return [item.key for item in items if item.key < limit]


def old_requests(items: Sequence[Item], before: datetime.datetime) -> list[str]:
    old = []
    for item in items:
        try:
            made = datetime.datetime.fromisoformat(decode_as(Claim, item.value).at)
        except (StoreError, ValueError):
            continue  # unreadable is not old
        if made < before:
            old.append(item.key)
    return old
