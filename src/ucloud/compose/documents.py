"""The wanted documents of all hosts as a pure function of the view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ucloud.model.network import Network
from ucloud.model.placement import Placement
from ucloud.model.seen import GuestState
from ucloud.model.vm import Vm
from ucloud.model.wanted import (
    WantedBlob,
    WantedImage,
    WantedName,
    WantedNetwork,
    WantedNic,
    WantedVm,
)
from ucloud.store import keys
from ucloud.store.view import Entry, View

Document = WantedVm | WantedNetwork | WantedBlob


def compose_documents(view: View) -> Mapping[str, Document]:
    """Every document that should be in the store now, by its key."""
    documents: dict[str, Document] = {}
    names = _names_by_network(view)
    vms_of: dict[str, list[WantedVm]] = {}
    for (host_id, vm_id), document in _vm_documents(view).items():
        documents[keys.wanted(host_id, "vm", vm_id)] = document
        vms_of.setdefault(host_id, []).append(document)
    for (host_id, network_id), network in _network_documents(view, vms_of, names).items():
        documents[keys.wanted(host_id, "network", network_id)] = network
    for (host_id, digest), blob in _blob_documents(view).items():
        documents[keys.wanted(host_id, "blob", digest)] = blob
    return documents


def _vm_documents(view: View) -> dict[tuple[str, str], WantedVm]:
    documents: dict[tuple[str, str], WantedVm] = {}
    for vm_id, entry in view.placements.items():
        vm = view.vms.get(vm_id)
        document = compose_vm(vm.value, entry.value, view) if vm and entry.value.host_id else None
        if document:
            documents[entry.value.host_id, vm_id] = document
    for place, old in view.wanted_vms.items():
        if place not in documents and not _answered_gone(view, place, old):
            elsewhere = _placed_elsewhere(view, place)
            documents[place] = replace(old.value, gone=True, keep_disk=True) if elsewhere else old.value
    return documents


def _placed_elsewhere(view: View, place: tuple[str, str]) -> bool:
    """The positive sign that a host must give up a VM; a placement that is not there says nothing."""
    placement = view.placements.get(place[1])
    return placement is not None and placement.value.host_id not in ("", place[0])


def _answered_gone(view: View, place: tuple[str, str], tombstone: Entry[WantedVm]) -> bool:
    """The host has reported, after the tombstone was written, that nothing is left."""
    seen = view.seen_vms.get(place)
    if seen is None or not tombstone.value.gone:
        return False
    return seen.value.state is GuestState.GONE and seen.value.wanted_revision >= tombstone.mod_revision


def compose_vm(vm: Vm, placement: Placement, view: View) -> WantedVm | None:
    """The document of one placed VM; its sizes are what the placement granted.

    None if its image is unknown: then the host is told nothing new.
    """
    image = view.images.get(vm.spec.image_id)
    if image is None:
        return None
    old = view.wanted_vms.get((placement.host_id, vm.meta.id))
    key_entries = [view.keys[key_id] for key_id in vm.spec.key_ids if key_id in view.keys]
    digest = image.value.spec.digest
    return WantedVm(
        vm_id=vm.meta.id,
        name=vm.meta.name,
        project=vm.meta.project,
        generation=placement.generation,
        spec_generation=vm.meta.generation,
        gone=bool(vm.meta.deleted_at),
        power=vm.spec.power,
        boots=vm.spec.boots,
        restart=vm.spec.restart,
        failover=vm.spec.failover,
        stop_timeout_s=vm.spec.stop_timeout_s,
        cpus=placement.cpus,
        memory_mib=placement.memory_mib,
        disk_gib=placement.disk_gib,
        image=WantedImage(digest, image.value.spec.format, view.blob_sources(digest)),
        nics=_nics(vm, view, old.value if old else None),
        keys=tuple(entry.value.spec.public_key for entry in key_entries),
        has_user_data=vm.spec.user_data_bytes > 0,
    )


def _nics(vm: Vm, view: View, old: WantedVm | None) -> tuple[WantedNic, ...]:
    """With the network's VNI; should the network be gone already, the one that the host was told before."""
    before = {nic.id: nic for nic in old.nics} if old else {}
    nics = []
    for nic in vm.spec.nics:
        network = view.networks.get(nic.network_id)
        if network:
            vni = network.value.spec.vni
            nics.append(WantedNic(nic.id, nic.network_id, vni, nic.mac, nic.ipv6, nic.ipv4))
        elif nic.id in before:
            nics.append(before[nic.id])
    return tuple(nics)


def _names_by_network(view: View) -> dict[str, list[WantedName]]:
    """All NICs of each network, placed or not, so that a name answers before its VM has started."""
    names: dict[str, list[WantedName]] = {}
    for vm_id in sorted(view.vms):
        vm = view.vms[vm_id].value
        if vm.meta.deleted_at:
            continue
        for nic in vm.spec.nics:
            name = WantedName(vm.meta.name, nic.mac, nic.ipv6, nic.ipv4)
            names.setdefault(nic.network_id, []).append(name)
    return names


def _network_documents(
    view: View, vms_of: Mapping[str, list[WantedVm]], names: Mapping[str, list[WantedName]]
) -> dict[tuple[str, str], WantedNetwork]:
    documents: dict[tuple[str, str], WantedNetwork] = {}
    needed = {(host_id, nic.network_id) for host_id, vms in vms_of.items() for vm in vms for nic in vm.nics}
    for host_id, network_id in needed:
        network = view.networks.get(network_id)
        if network:
            documents[host_id, network_id] = compose_network(network.value, tuple(names.get(network_id, ())))
    for place, old in view.wanted_networks.items():
        if place in documents:
            continue
        if place in needed:
            documents[place] = old.value  # its spec is not there, which is no tombstone
            continue
        seen = view.seen_networks.get(place)
        finished = seen is not None and seen.value.gone and seen.value.wanted_revision >= old.mod_revision
        if not (old.value.gone and finished):
            documents[place] = replace(old.value, gone=True)
    return documents


def compose_network(network: Network, names: tuple[WantedName, ...]) -> WantedNetwork:
    return WantedNetwork(
        network_id=network.meta.id,
        name=network.meta.name,
        vni=network.spec.vni,
        gone=False,
        ipv6_prefix=network.spec.ipv6_prefix,
        ipv4_subnet=network.spec.ipv4_subnet,
        egress=network.spec.egress,
        names=names,
    )


def _blob_documents(view: View) -> dict[tuple[str, str], WantedBlob]:
    """The cleaner's tombstones, as long as the host has the blob and no image names it again."""
    named = {entry.value.spec.digest for entry in view.images.values()}
    return {
        (host_id, digest): tombstone.value
        for (host_id, digest), tombstone in view.wanted_blobs.items()
        if digest not in named and view.has_blob(host_id, digest)
    }
