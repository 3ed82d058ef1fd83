"""The end of what was deleted: once nothing of it is left anywhere, its spec, placement and claims go in one step.

A host that was taken over is not waited for: what it would have to clean stays told to it.
``plan_cleaning`` is pure; ``apply_cleaning`` commits each end in a transaction that compares the spec.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from ucloud.compose.hosts import Ending, ending_of, plan_host_endings
from ucloud.errors import StoreError
from ucloud.model.image import Image
from ucloud.model.seen import GuestState
from ucloud.model.vm import Vm
from ucloud.model.wanted import WantedBlob, WantedVm
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Store, Txn, unchanged
from ucloud.store.claims import claims_of
from ucloud.store.codec import encode
from ucloud.store.events import event_put
from ucloud.store.view import Doubts, Entry, View
from ucloud.system.clock import Clock

logger = logging.getLogger(__name__)

NO_DOUBTS = Doubts()


def plan_cleaning(view: View, doubts: Doubts = NO_DOUBTS) -> tuple[Ending, ...]:
    """What can end now. Nothing ends on a doubt."""
    deleted = _deleted(view.vms)
    documents = _documents_of(view, {entry.value.meta.id for entry in deleted})
    endings = [ending for entry in deleted if (ending := _vm_ending(view, entry, documents[entry.value.meta.id]))]
    endings += [ending_of("network", e) for e in _deleted(view.networks) if not _network_users(view, e.value.meta.id)]
    endings += [_image_ending(view, e) for e in _deleted(view.images) if not _image_users(view, e.value.meta.id)]
    endings += [ending_of("key", e) for e in _deleted(view.keys) if not _key_users(view, e.value.meta.id)]
    endings += plan_host_endings(view)
    return tuple(one for one in endings if not doubts.about(one.noun, one.entry.value.meta.id))


def _deleted(entries: Any) -> list[Entry[Any]]:
    return [entry for entry in entries.values() if entry.value.meta.deleted_at]


def _documents_of(view: View, vm_ids: Iterable[str]) -> dict[str, dict[str, Entry[WantedVm]]]:
    """By VM and host, the documents of these VMs: one look at all, however many VMs end."""
    found: dict[str, dict[str, Entry[WantedVm]]] = {vm_id: {} for vm_id in vm_ids}
    if found:
        for (host_id, vm_id), document in view.wanted_vms.items():
            if vm_id in found:
                found[vm_id][host_id] = document
    return found


def _vm_ending(view: View, entry: Entry[Vm], documents: dict[str, Entry[WantedVm]]) -> Ending | None:
    """None while a host still has something of the VM, or has not said that it has not."""
    vm_id = entry.value.meta.id
    given_up = {host_id for host_id in documents if _is_given_up(view, host_id, vm_id)}
    waited_for = {host_id: document for host_id, document in documents.items() if host_id not in given_up}
    if not all(_reported_gone(view, host_id, document) for host_id, document in waited_for.items()):
        return None
    placement = view.placements.get(vm_id)
    if placement and placement.value.host_id and placement.value.host_id not in documents:
        return None  # not composed yet, so the host does not know; it must answer first
    placement_key = keys.placement(vm_id)
    compares = (
        unchanged(entry.key, entry.mod_revision),
        unchanged(placement_key, placement.mod_revision if placement else 0),
        *(unchanged(document.key, document.mod_revision) for document in documents.values()),
        *(compare for host_id in given_up for compare in _given_up_compares(view, host_id, vm_id)),
    )
    deletes = (
        entry.key,
        placement_key,
        keys.secret_user_data_source(vm_id),
        keys.migration(vm_id),
        keys.spec("migration", vm_id),
        *(document.key for document in waited_for.values()),
        *(keys.secret_user_data(host_id, vm_id) for host_id in documents),
        *(keys.lock(host_id, vm_id) for host_id in given_up),
        *claims_of(entry.value),
    )
    puts = tuple(
        Put(documents[host_id].key, encode(_plain_tombstone(documents[host_id].value))) for host_id in given_up
    )
    return Ending("vm", entry, compares, deletes, puts)


def _reported_gone(view: View, host_id: str, document: Entry[Any]) -> bool:
    seen = view.seen_vms.get((host_id, document.value.vm_id))
    if seen is None or not document.value.gone or (host_id, document.value.vm_id) in view.locks:
        return False
    return seen.value.state is GuestState.GONE and seen.value.wanted_revision >= document.mod_revision


def _is_given_up(view: View, host_id: str, vm_id: str) -> bool:
    """The host was taken over, and nothing of the VM can run there: no lock, or somebody said that the host is off."""
    if view.taken_over(host_id) is None or (host_id, vm_id) not in view.wanted_vms:
        return False
    return view.is_confirmed_off(host_id) or (host_id, vm_id) not in view.locks


def _given_up_compares(view: View, host_id: str, vm_id: str) -> list[Compare]:
    mark, lock = view.taken_over(host_id), view.locks.get((host_id, vm_id))
    registered = view.registered[host_id]
    compares = [
        unchanged(keys.lock(host_id, vm_id), lock.mod_revision if lock else 0),
        unchanged(registered.key, registered.mod_revision),
    ]
    return [*compares, unchanged(mark.key, mark.mod_revision)] if mark else compares


def _plain_tombstone(document: WantedVm) -> WantedVm:
    """For a host that could not answer yet: nothing of the VM is wanted any more, wherever its disk is."""
    return replace(document, gone=True, keep_disk=False, machine=None, migration=None, has_user_data=False)


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
    return replace(ending_of("image", entry), puts=tuple(puts))


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
    writes: list[Put | Delete] = [*(Delete(key) for key in ending.deletes), *ending.puts]
    if ending.is_whole:
        writes.append(event)
    return Txn((leader, *ending.compares), tuple(writes))
