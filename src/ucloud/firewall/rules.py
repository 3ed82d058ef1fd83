"""What the firewall must know, as plain data. Pure.

The renderer of a packet filter (nft now, pf later) gets nothing but these values.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from ucloud.model import devices
from ucloud.model.network import Egress
from ucloud.model.wanted import WantedNetwork, WantedNic


@dataclass(frozen=True, slots=True)
class NicRules:
    """What one NIC may use as its own. ``ipv6`` are the assigned, the EUI-64 and the link-local address."""

    nic_id: str
    device: str
    mac: str
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UplinkRules:
    """A network's way out: ``sources`` are its own prefixes, translated on leaving the host if ``egress``.

    ``gateways`` are the addresses from which its gateway asks name servers.
    """

    device: str
    sources: tuple[str, ...]
    gateways: tuple[str, ...]
    egress: bool


@dataclass(frozen=True, slots=True)
class HostRules:
    """All rules of a host. ``refused`` are prefixes (the underlay's) that no guest may reach."""

    tag: str
    nics: tuple[NicRules, ...]
    uplinks: tuple[UplinkRules, ...]
    refused: tuple[str, ...]
    vxlan_port: int


@dataclass(frozen=True, slots=True)
class GatewayRules:
    """A gateway forwards only what comes from its network's own prefixes."""

    sources: tuple[str, ...]


@functools.lru_cache(maxsize=10_000)
def nic_rules(nic: WantedNic, tag: str) -> NicRules:
    own = (nic.ipv6, devices.eui64_address(f"{nic.ipv6}/64", nic.mac), devices.link_local_of(nic.mac))
    return NicRules(
        nic_id=nic.id,
        device=devices.tap_device(tag, nic.id),
        mac=nic.mac,
        ipv4=(nic.ipv4,) if nic.ipv4 else (),
        ipv6=tuple(dict.fromkeys(own)),
    )


def uplink_rules(network: WantedNetwork, tag: str) -> UplinkRules:
    ipv4 = devices.gateway_ipv4(network.ipv4_subnet) or devices.uplink_ipv4(network.vni)
    return UplinkRules(
        device=devices.network_devices(tag, network.vni).uplink,
        sources=_prefixes(network),
        gateways=(ipv4, devices.gateway_ipv6(network.ipv6_prefix)),
        egress=network.egress is Egress.NAT,
    )


def host_rules(
    nics: Iterable[WantedNic],
    networks: Iterable[WantedNetwork],
    *,
    tag: str,
    vxlan_port: int,
    refused: tuple[str, ...] = (),
) -> HostRules:
    """Sorted, so that the same wishes give the same text."""
    return HostRules(
        tag=tag,
        nics=tuple(nic_rules(nic, tag) for nic in sorted(nics, key=lambda nic: nic.id)),
        uplinks=tuple(uplink_rules(network, tag) for network in sorted(networks, key=lambda one: one.vni)),
        refused=refused,
        vxlan_port=vxlan_port,
    )


def gateway_rules(network: WantedNetwork) -> GatewayRules:
    return GatewayRules(_prefixes(network))


def _prefixes(network: WantedNetwork) -> tuple[str, ...]:
    return tuple(prefix for prefix in (network.ipv6_prefix, network.ipv4_subnet) if prefix)
