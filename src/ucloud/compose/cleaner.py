"""The end of what was deleted: once nothing of it is left anywhere, its spec, placement and claims go in one step.

``plan_cleaning`` is pure; ``apply_cleaning`` commits each end in a transaction that compares the spec.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ucloud.errors import StoreError
from ucloud.model.image import Image
from ucloud.model.seen import GuestState
from ucloud.model.vm import Vm
from ucloud.model.wanted import WantedBlob
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Store, Txn, unchanged
from ucloud.store.claims import claims_of
from ucloud.store.codec import encode
from ucloud.store.events import event_put
from ucloud.store.view import Doubts, Entry, View
from ucloud.system.clock import Clock

logger = logging.getLogger(__name__)

NO_DOUBTS = Doubts()


@dataclass(frozen=True, slots=True)
class Ending:
    """An object that can go: everything to delete, and to write, if what is compared is unchanged."""

    noun: str
    entry: Entry[Any]
    compares: tuple[Compare, ...]
    deletes: tuple[str, ...]
    puts: tuple[Put, ...] = ()


def plan_cleaning(view: View, doubts: Doubts = NO_DOUBTS) -> tuple[Ending, ...]:
    """What can end now. Nothing ends on a doubt."""
    endings = [ending for entry in _deleted(view.vms) if (ending := _vm_ending(view, entry))]
    endings += [_ending("network", e) for e in _deleted(view.networks) if not _network_users(view, e.value.meta.id)]
    endings += [_image_ending(view, e) for e in _deleted(view.images) if not _image_users(view, e.value.meta.id)]
    endings += [_ending("key", e) for e in _deleted(view.keys) if not _key_users(view, e.value.meta.id)]
    return tuple(one for one in endings if not doubts.about(one.noun, one.entry.value.meta.id))


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


def _image_ending(view: View, entry: Entry[Image]) -> Ending:
    """With tombstones for its blob on all hosts that have it, unless another image names the same blob."""
    digest = entry.value.spec.digest
    others = [one.value for one in view.images.values() if one.key != entry.key]
    hosts = [] if any(image.spec.digest == digest for image in others) else list(view.seen_hosts)
    puts = [
        Put(keys.wanted(host_id, "blob", digest), encode(WantedBlob(digest, gone=True)))
        for host_id in hosts
        if view.has_blob(host_id, digest)
    ]
    return replace(_ending("image", entry), puts=tuple(puts))


def _image_users(view: View, image_id: str) -> bool:
    return any(entry.value.spec.image_id == image_id for entry in view.vms.values())


def _key_users(view: View, key_id: str) -> bool:
    return any(key_id in entry.value.spec.key_ids for entry in view.vms.values())


def apply_cleaning(store: Store, endings: Iterable[Ending], *, leader: Compare, clock: Clock) -> int:
    """Commit the endings; the number that was. One that lost or was refused is planned again by the next pass."""
    ended = 0
    for ending in endings:
        meta = ending.entry.value.meta
        try:
            done = store.commit(_txn(ending, leader, clock)).ok
        except StoreError as error:
            logger.error("failed to end %s %s: %s", ending.noun, meta.id, error.message)
            continue
        ended += done
        logger.info("%s %s: %s", ending.noun, meta.id, "gone" if done else "changed meanwhile")
    return ended


def _txn(ending: Ending, leader: Compare, clock: Clock) -> Txn:
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
    writes: list[Put | Delete] = [*(Delete(key) for key in ending.deletes), *ending.puts, event]
    return Txn((leader, *ending.compares), tuple(writes))
