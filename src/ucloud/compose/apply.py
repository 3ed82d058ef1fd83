"""Writes what ``documents`` composed: only differences, in batches, each comparing the election and what was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ucloud.compose.documents import Document
from ucloud.model.wanted import WantedVm
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Store, Txn, unchanged
from ucloud.store.codec import encode
from ucloud.store.view import Entry, View

BATCH_WRITES = 100


@dataclass(frozen=True, slots=True)
class Change:
    """One document to write, or to delete if ``document`` is None, if it is still at ``mod_revision``."""

    key: str
    mod_revision: int
    document: Document | None


def plan_changes(view: View, documents: Mapping[str, Document], *, complete: bool = True) -> tuple[Change, ...]:
    """The differences between the documents that should be there and those that are.

    If the view is not ``complete`` (a stored value could not be read), nothing that ends something is planned.
    """
    entries: list[Entry[Any]] = [*view.wanted_vms.values(), *view.wanted_networks.values(), *view.wanted_blobs.values()]
    stored = {entry.key: entry for entry in entries}
    changes = [
        Change(key, stored[key].mod_revision if key in stored else 0, document)
        for key, document in documents.items()
        if key not in stored or stored[key].value != document
    ]
    changes += [Change(key, entry.mod_revision, None) for key, entry in stored.items() if key not in documents]
    if not complete:
        changes = [change for change in changes if change.document is not None and not change.document.gone]
    return tuple(sorted(changes, key=lambda change: change.key))


def commit_changes(store: Store, changes: Sequence[Change], *, leader: Compare) -> int:
    """Write the changes; returns the last revision. A batch that lost is tried one by one: one race spoils nothing."""
    revision = 0
    for start in range(0, len(changes), BATCH_WRITES):
        batch = changes[start : start + BATCH_WRITES]
        committed = store.commit(_txn(store, batch, leader))
        revision = committed.revision
        if not committed.ok:
            revision = [store.commit(_txn(store, (change,), leader)).revision for change in batch][-1]
    return revision


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


def _user_data_writes(store: Store, change: Change) -> list[Put]:
    """The host's copy of a VM's user data, made with the VM's first document there; it never changes after."""
    document = change.document
    if not isinstance(document, WantedVm) or not document.has_user_data or change.mod_revision:
        return []
    source = store.get(keys.secret_user_data_source(document.vm_id))
    if source is None:
        return []
    host_id = keys.host_of_wanted(change.key)
    return [Put(keys.secret_user_data(host_id, document.vm_id), source.value)]
