"""The end of what was deleted: once nothing of it is left anywhere, its spec, placement and claims go in one step.

``plan_cleaning`` is pure; ``apply_cleaning`` commits each end in a transaction that compares the spec.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ucloud.model.seen import GuestState
from ucloud.model.vm import Vm
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Store, Txn, unchanged
from ucloud.store.claims import claims_of
from ucloud.store.events import event_put
from ucloud.store.view import Entry, View
from ucloud.system.clock import Clock

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """An object that can go: everything to delete, if what was ``compared`` is unchanged."""

    noun: str
    entry: Entry[Any]
    compares: tuple[Compare, ...]
    deletes: tuple[str, ...]


def plan_cleaning(view: View) -> tuple[Ending, ...]:
    endings = [ending for entry in _deleted(view.vms) if (ending := _vm_ending(view, entry))]
    endings += [_ending("network", e) for e in _deleted(view.networks) if not _network_users(view, e.value.meta.id)]
    endings += [_ending("image", e) for e in _deleted(view.images) if not _users(view, "image_id", e.value.meta.id)]
    endings += [_ending("key", e) for e in _deleted(view.keys) if not _key_users(view, e.value.meta.id)]
    return tuple(endings)


def _deleted(entries: Any) -> list[Entry[Any]]:
    return [entry for entry in entries.values() if entry.value.meta.deleted_at]


def _ending(noun: str, entry: Entry[Any]) -> Ending:
    compares = (unchanged(entry.key, entry.mod_revision),)
    return Ending(noun, entry, compares, (entry.key, *claims_of(entry.value)))


def _vm_ending(view: View, entry: Entry[Vm]) -> Ending | None:
    """None while a host still has something of the VM, or has not said that it has not."""
    vm_id = entry.value.meta.id
    documents = [(host_id, document) for (host_id, of_vm), document in view.wanted_vms.items() if of_vm == vm_id]
    if not all(_reported_gone(view, host_id, document) for host_id, document in documents):
        return None
    placement = view.placements.get(vm_id)
    hosts = {host_id for host_id, _ in documents}
    if placement and placement.value.host_id and placement.value.host_id not in hosts:
        return None  # not composed yet, so the host does not know; it must answer first
    placement_key = keys.placement(vm_id)
    compares = (
        unchanged(entry.key, entry.mod_revision),
        unchanged(placement_key, placement.mod_revision if placement else 0),
        *(unchanged(document.key, document.mod_revision) for _, document in documents),
    )
    deletes = (
        entry.key,
        placement_key,
        keys.secret_user_data_source(vm_id),
        *(document.key for _, document in documents),
        *(keys.secret_user_data(host_id, vm_id) for host_id, _ in documents),
        *claims_of(entry.value),
    )
    return Ending("vm", entry, compares, deletes)


def _reported_gone(view: View, host_id: str, document: Entry[Any]) -> bool:
    seen = view.seen_vms.get((host_id, document.value.vm_id))
    if seen is None or not document.value.gone or (host_id, document.value.vm_id) in view.locks:
        return False
    return seen.value.state is GuestState.GONE and seen.value.wanted_revision >= document.mod_revision


def _network_users(view: View, network_id: str) -> bool:
    """A VM has a NIC in it, or a host still carries it."""
    nics = (nic for entry in view.vms.values() for nic in entry.value.spec.nics)
    carried = any(of_network == network_id for _, of_network in view.wanted_networks)
    return carried or any(nic.network_id == network_id for nic in nics)


def _users(view: View, field: str, object_id: str) -> bool:
    return any(getattr(entry.value.spec, field) == object_id for entry in view.vms.values())


def _key_users(view: View, key_id: str) -> bool:
    return any(key_id in entry.value.spec.key_ids for entry in view.vms.values())


def apply_cleaning(store: Store, endings: Iterable[Ending], *, leader: Compare, clock: Clock) -> int:
    """Commit the endings; the number that was. One that lost its race is planned again by the next pass."""
    ended = 0
    for ending in endings:
        meta = ending.entry.value.meta
        event = event_put(
            clock,
            f"{ending.noun}_gone",
            f"{ending.noun} {meta.name} is gone, its names and addresses are free",
            about=ending.noun,
            about_id=meta.id,
            project=meta.project,
            actor="scheduler",
        )
        writes: list[Put | Delete] = [*(Delete(key) for key in ending.deletes), event]
        done = store.commit(Txn((leader, *ending.compares), tuple(writes))).ok
        ended += done
        logger.info("%s %s: %s", ending.noun, meta.id, "gone" if done else "changed meanwhile")
    return ended
