"""What a network needs on a host, and which steps lead there. Pure.

``NetworkTarget`` is computed from the wanted document and the settings alone. Each part that is built has a digest of
everything it was built from; it is written on the part when it is complete (as the alias of a device, as the name of a
configuration file), so looking at a finished network costs a few reads, and a half-built one is never taken as done.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network

from ucloud.config.sections import NetworkSection
from ucloud.model import devices
from ucloud.model.devices import NetworkDevices
from ucloud.model.network import Egress
from ucloud.model.wanted import WantedNetwork
from ucloud.network import services


class Step(StrEnum):
    """One effect on the host. Each can be repeated, and cut short at any point."""

    MAKE_BRIDGE = "make_bridge"
    MAKE_VXLAN = "make_vxlan"
    UPDATE_PEERS = "update_peers"
    MAKE_GATEWAY = "make_gateway"
    WRITE_NAMES = "write_names"
    START_SERVICES = "start_services"
    STOP_SERVICES = "stop_services"
    REMOVE_GATEWAY = "remove_gateway"
    REMOVE_LINKS = "remove_links"
    REMOVE_FILES = "remove_files"


Peers = Mapping[str, str]
"""MACs behind the VXLAN device, and the underlay address of the host where each is."""


@dataclass(frozen=True, slots=True)
class GatewayTarget:
    """The inside of a gateway's namespace. ``addresses`` are with prefix length; ``rules`` is text for nft.

    ``subnets`` become routes of the host. ``uplink_ipv4`` is the gateway's own address where guests have no IPv4.
    """

    addresses: tuple[str, ...]
    subnets: tuple[str, ...]
    uplink_ipv4: str
    egress: bool
    mtu: int
    rules: str


@dataclass(frozen=True, slots=True)
class NetworkTarget:
    network_id: str
    devices: NetworkDevices
    vni: int
    group: str
    port: int
    local: str
    mtu: int
    peers: Peers
    gateway: GatewayTarget
    services: str
    names: str
    bridge_digest: str
    vxlan_digest: str
    gateway_digest: str
    services_digest: str


@dataclass(frozen=True, slots=True)
class ObservedNetwork:
    """Digests of the complete parts, "" where one is missing or half built. ``present``: anything at all is there.

    ``told`` are the peers that were preset last, ``forwards`` what the VXLAN device knows: presets and learned ones.
    """

    bridge: str = ""
    vxlan: str = ""
    gateway: str = ""
    services: str = ""
    names: str | None = None
    told: Peers | None = None
    forwards: Peers = field(default_factory=dict)
    present: bool = False


@dataclass(frozen=True, slots=True)
class PeerChanges:
    """``replace`` is news, whatever was learned; ``keep`` is old and missing, so what is learned meanwhile wins."""

    replace: Peers
    keep: Peers
    remove: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.replace or self.keep or self.remove)


def target_of(
    wanted: WantedNetwork, settings: NetworkSection, *, rules: str, forwarders: tuple[str, ...], local: str = ""
) -> NetworkTarget:
    """``local`` is the address that the VXLAN device sends from."""
    mtu = devices.guest_mtu(settings.underlay_mtu)
    group = devices.group_address(settings.group_prefix, wanted.vni)
    underlay = settings.underlay_device or devices.device_prefixes(settings.tag).underlay
    gateway = _gateway_of(wanted, mtu, rules)
    text = services.render_configuration(
        wanted, mtu=mtu, domain=settings.domain, forwarders=forwarders if gateway.egress else ()
    )
    return NetworkTarget(
        network_id=wanted.network_id,
        devices=devices.network_devices(settings.tag, wanted.vni),
        vni=wanted.vni,
        group=group,
        port=settings.vxlan_port,
        local=local,
        mtu=mtu,
        peers=_peers_of(wanted, local),
        gateway=gateway,
        services=text,
        names=services.render_names(wanted, domain=settings.domain),
        bridge_digest=_digest("bridge", mtu),
        vxlan_digest=_digest("vxlan", wanted.vni, group, settings.vxlan_port, underlay, local, mtu),
        gateway_digest=_digest("gateway", gateway),
        services_digest=_digest("services", text),
    )


def plan_network(target: NetworkTarget, observed: ObservedNetwork) -> tuple[Step, ...]:
    """The steps to a complete network, in order; none if it is complete."""
    steps = []
    if observed.bridge != target.bridge_digest:
        steps.append(Step.MAKE_BRIDGE)
    if observed.vxlan != target.vxlan_digest or Step.MAKE_BRIDGE in steps:
        steps.append(Step.MAKE_VXLAN)
    untold = dict(observed.told or {}) != dict(target.peers) or bool(plan_peers(target, observed))
    if untold or (target.peers and Step.MAKE_VXLAN in steps):
        steps.append(Step.UPDATE_PEERS)
    if observed.gateway != target.gateway_digest or Step.MAKE_BRIDGE in steps:
        steps.append(Step.MAKE_GATEWAY)
    if observed.names != target.names:
        steps.append(Step.WRITE_NAMES)
    if observed.services != target.services_digest or Step.MAKE_GATEWAY in steps:
        steps.append(Step.START_SERVICES)
    return tuple(steps)


def plan_peers(target: NetworkTarget, observed: ObservedNetwork) -> PeerChanges:
    """What the VXLAN device must be told.

    A peer that was told before and is found elsewhere has moved, and the device has learned it: sooner than the news
    that come by way of the store. A peer that left is removed wherever it is.
    """
    told = observed.told or {}
    news = {mac: host for mac, host in target.peers.items() if told.get(mac) != host}
    return PeerChanges(
        replace={mac: host for mac, host in news.items() if observed.forwards.get(mac) != host},
        keep={mac: host for mac, host in target.peers.items() if mac not in news and mac not in observed.forwards},
        remove=tuple(sorted(mac for mac in told if mac not in target.peers and mac in observed.forwards)),
    )


def plan_removal(observed: ObservedNetwork) -> tuple[Step, ...]:
    """The steps after which nothing of a network is left; none if nothing is."""
    if not observed.present:
        return ()
    return (Step.STOP_SERVICES, Step.REMOVE_GATEWAY, Step.REMOVE_LINKS, Step.REMOVE_FILES)


def _peers_of(wanted: WantedNetwork, local: str) -> Peers:
    """Addresses in the kernel's spelling; a host that says nothing usable is reached by flooding."""
    found = {}
    for peer in wanted.peers:
        with contextlib.suppress(ValueError):
            address = str(IPv6Address(peer.host))
            if address != local:
                found[peer.mac] = address
    return found


def _gateway_of(wanted: WantedNetwork, mtu: int, rules: str) -> GatewayTarget:
    prefix = IPv6Network(wanted.ipv6_prefix)
    addresses = [
        f"{devices.GATEWAY_LINK_LOCAL}/64",
        f"{devices.gateway_ipv6(wanted.ipv6_prefix)}/64",
        f"{devices.METADATA_IPV4}/32",
    ]
    subnets = [str(prefix)]
    if wanted.ipv4_subnet:
        subnet = IPv4Network(wanted.ipv4_subnet)
        addresses.insert(0, f"{subnet[1]}/{subnet.prefixlen}")
        subnets.append(str(subnet))
    return GatewayTarget(
        addresses=tuple(addresses),
        subnets=tuple(subnets),
        uplink_ipv4="" if wanted.ipv4_subnet else devices.uplink_ipv4(wanted.vni),
        egress=wanted.egress is not Egress.NONE,
        mtu=mtu,
        rules=rules,
    )


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
