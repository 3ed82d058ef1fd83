"""The wanted documents of all networks as a pure function of the view: on each host that has a VM in them.

With the names of all VMs of the network, for its DNS, and the NICs on other hosts, for the FDB: only real broadcast is
flooded. A NIC is where its VM is placed, so also during a migration until the lock has moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ucloud.model.network import Network
from ucloud.model.wanted import WantedName, WantedNetwork, WantedPeer, WantedVm
from ucloud.store.view import View


@dataclass(frozen=True, slots=True)
class _PlacedNic:
    host_id: str
    peer: WantedPeer


def network_documents(
    view: View, vm_documents: Mapping[tuple[str, str], WantedVm]
) -> dict[tuple[str, str], WantedNetwork]:
    """By (host id, network id): those that the VMs' documents need, and those that a host has not given up yet."""
    names, placed = _names(view), _placed_nics(view)
    documents: dict[tuple[str, str], WantedNetwork] = {}
    needed = {(host_id, nic.network_id) for (host_id, _), vm in vm_documents.items() for nic in vm.nics}
    for host_id, network_id in needed:
        network = view.networks.get(network_id)
        if network:
            peers = tuple(nic.peer for nic in placed.get(network_id, ()) if nic.host_id != host_id)
            documents[host_id, network_id] = compose_network(network.value, tuple(names.get(network_id, ())), peers)
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


def compose_network(
    network: Network, names: tuple[WantedName, ...], peers: tuple[WantedPeer, ...] = ()
) -> WantedNetwork:
    return WantedNetwork(
        network_id=network.meta.id,
        name=network.meta.name,
        vni=network.spec.vni,
        gone=False,
        ipv6_prefix=network.spec.ipv6_prefix,
        ipv4_subnet=network.spec.ipv4_subnet,
        egress=network.spec.egress,
        names=names,
        peers=peers,
    )


def _names(view: View) -> dict[str, list[WantedName]]:
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


def _placed_nics(view: View) -> dict[str, list[_PlacedNic]]:
    """The NICs of each network whose host can be reached by other hosts, by MAC."""
    placed: dict[str, list[_PlacedNic]] = {}
    for vm_id, entry in view.placements.items():
        vm, report = view.vms.get(vm_id), view.seen_hosts.get(entry.value.host_id)
        address = report.value.underlay_address if report else ""
        if vm is None or vm.value.meta.deleted_at or not address:
            continue
        for nic in vm.value.spec.nics:
            placed.setdefault(nic.network_id, []).append(_PlacedNic(entry.value.host_id, WantedPeer(nic.mac, address)))
    return {network_id: sorted(nics, key=lambda nic: nic.peer.mac) for network_id, nics in placed.items()}
