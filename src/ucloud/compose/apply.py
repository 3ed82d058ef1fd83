"""Writes what ``documents`` composed: only differences, in batches, each comparing the election and what was read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
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

BATCH_WRITES = 100
BATCH_BYTES = 512 * 1024
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
    for batch in batches(changes):
        revision = max(revision, _commit(store, batch, leader))
    return revision


def batches(changes: Sequence[Change]) -> Iterator[tuple[Change, ...]]:
    """Cut by number and size: etcd takes 1.5 MiB in a request. A document with user data goes alone."""
    batch: list[Change] = []
    size_bytes = 0
    for change in changes:
        change_bytes = len(encode(change.document)) if change.document else 0
        alone = _brings_user_data(change)
        if batch and (alone or len(batch) >= BATCH_WRITES or size_bytes + change_bytes > BATCH_BYTES):
            yield tuple(batch)
            batch, size_bytes = [], 0
        if alone:
            yield (change,)
        else:
            batch.append(change)
            size_bytes += change_bytes
    if batch:
        yield tuple(batch)


def _commit(store: Store, batch: Sequence[Change], leader: Compare) -> int:
    """The revision after it. What lost or was refused in company is tried alone; alone, the next pass sees to it."""
    try:
        committed = store.commit(_txn(store, batch, leader))
    except StoreError as error:
        if len(batch) == 1:
            logger.error("failed to write %s: %s", batch[0].key, error.message)
            return 0
        committed = Committed(False, 0)
    if committed.ok or len(batch) == 1:
        return committed.revision
    return max(_commit(store, (change,), leader) for change in batch)


def _txn(store: Store, changes: Sequence[Change], leader: Compare) -> Txn:
    compares = [leader, *(unchanged(change.key, change.mod_revision) for change in changes)]
    writes: list[Put | Delete] = []
    for change in changes:
        if change.document is None:
            writes.append(Delete(change.key))
        else:
            writes.append(Put(change.key, encode(change.document)))
            writes += _user_data_writes(store, change)
    return Txn(tuple(compares), tuple(writes))


def _brings_user_data(change: Change) -> bool:
    """The host's copy of a VM's user data is made with the VM's first document there; it never changes after."""
    document = change.document
    return isinstance(document, WantedVm) and document.has_user_data and not change.mod_revision


def _user_data_writes(store: Store, change: Change) -> list[Put]:
    if not _brings_user_data(change) or not isinstance(change.document, WantedVm):
        return []
    vm_id = change.document.vm_id
    source = store.get(keys.secret_user_data_source(vm_id))
    if source is None:
        return []
    return [Put(keys.secret_user_data(keys.host_of_wanted(change.key), vm_id), source.value)]
