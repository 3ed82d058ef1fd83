"""Writes what ``documents`` composed: only differences, in batches, each comparing the election and what was read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ucloud.compose.documents import Document
from ucloud.errors import StoreError
from ucloud.model.wanted import WantedVm
from ucloud.store import keys
from ucloud.store.api import Committed, Compare, Delete, Put, Store, Txn, unchanged
from ucloud.store.codec import encode
from ucloud.store.view import Doubts, Entry, View

logger = logging.getLogger(__name__)

BATCH_CHANGES = 100
BATCH_BYTES = 512 * 1024
READ_KEYS = 16  # user data may have 64 KiB each
NO_DOUBTS = Doubts()


@dataclass(frozen=True, slots=True)
class Change:
    """One document to write, or to delete if ``document`` is None, if it is still at ``mod_revision``."""

    key: str
    mod_revision: int
    document: Document | None


def plan_changes(view: View, documents: Mapping[str, Document], *, doubts: Doubts = NO_DOUBTS) -> tuple[Change, ...]:
    """The differences between the documents that should be there and those that are.

    Nothing that ends something is planned on a doubt.
    """
    entries: list[Entry[Any]] = [*view.wanted_vms.values(), *view.wanted_networks.values(), *view.wanted_blobs.values()]
    stored = {entry.key: entry for entry in entries}
    changes = [
        Change(key, stored[key].mod_revision if key in stored else 0, document)
        for key, document in documents.items()
        if key not in stored or stored[key].value != document
    ]
    changes += [Change(key, entry.mod_revision, None) for key, entry in stored.items() if key not in documents]
    sure = [change for change in changes if not _ends(change) or not doubts.about(*keys.noun_and_id(change.key))]
    return tuple(sorted(sure, key=lambda change: change.key))


def _ends(change: Change) -> bool:
    return change.document is None or change.document.gone


def commit_changes(store: Store, changes: Sequence[Change], *, leader: Compare) -> int:
    """Write the changes; returns the last revision. One that cannot be written spoils nothing for the others."""
    revision = 0
    for batch in batches(_with_writes(store, changes)):
        revision = max(revision, _commit(store, batch, leader))
    return revision


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change with all that is written for it."""

    change: Change
    writes: tuple[Put | Delete, ...]

    @property
    def size_bytes(self) -> int:
        return sum(len(write.value) for write in self.writes if isinstance(write, Put))


def batches(prepared: Iterable[Prepared]) -> Iterator[tuple[Prepared, ...]]:
    """Cut by number and size: etcd takes 1.5 MiB in a request."""
    batch: list[Prepared] = []
    size_bytes = 0
    for one in prepared:
        if batch and (len(batch) >= BATCH_CHANGES or size_bytes + one.size_bytes > BATCH_BYTES):
            yield tuple(batch)
            batch, size_bytes = [], 0
        batch.append(one)
        size_bytes += one.size_bytes
    if batch:
        yield tuple(batch)


def _commit(store: Store, batch: Sequence[Prepared], leader: Compare) -> int:
    """The revision after it. What lost or was refused in company is tried alone; alone, the next pass sees to it."""
    compares = (leader, *(unchanged(one.change.key, one.change.mod_revision) for one in batch))
    try:
        committed = store.commit(Txn(compares, tuple(write for one in batch for write in one.writes)))
    except StoreError as error:
        if len(batch) == 1:
            logger.error("failed to write %s: %s", batch[0].change.key, error.message)
            return 0
        committed = Committed(False, 0)
    if committed.ok or len(batch) == 1:
        return committed.revision
    return max(_commit(store, (one,), leader) for one in batch)


def _with_writes(store: Store, changes: Sequence[Change]) -> Iterator[Prepared]:
    for start in range(0, len(changes), READ_KEYS):
        some = changes[start : start + READ_KEYS]
        user_data = _read_user_data(store, [change for change in some if _brings_user_data(change)])
        yield from (Prepared(change, _writes(change, user_data)) for change in some)


def _writes(change: Change, user_data: Mapping[str, bytes]) -> tuple[Put | Delete, ...]:
    noun, object_id = keys.noun_and_id(change.key)
    copy = keys.secret_user_data(keys.host_of_wanted(change.key), object_id)
    if change.document is None:
        # a host that gave a VM up needs no copy of its user data any more
        return (Delete(change.key), Delete(copy)) if noun == "vm" else (Delete(change.key),)
    document = Put(change.key, encode(change.document))
    return (document, Put(copy, user_data[change.key])) if change.key in user_data else (document,)


def _brings_user_data(change: Change) -> bool:
    """The host's copy of a VM's user data is made with the VM's first document there; it never changes after."""
    document = change.document
    return isinstance(document, WantedVm) and document.has_user_data and not change.mod_revision


def _read_user_data(store: Store, changes: Sequence[Change]) -> dict[str, bytes]:
    """By the key of the document that it comes with."""
    if not changes:
        return {}
    sources = {change.key: keys.secret_user_data_source(keys.last_segment(change.key)) for change in changes}
    items = store.read(tuple(sources.values())).items
    return {key: item.value for key, source in sources.items() if (item := items[source]) is not None}
