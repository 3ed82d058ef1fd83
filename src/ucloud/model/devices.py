"""How the parts of a network are called and addressed on a host. Pure.

All rooms that touch a host's devices (network, firewall, metadata) take the names from here, so that they agree without
importing each other. Every name carries the cloud's tag, so that two clouds share a machine, and has at most 15
characters (IFNAMSIZ). The gateway looks the same on every host: a VM keeps it when it moves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network

# 06: is locally administered too, but no NIC's MAC begins with it (theirs begin with 02:).
GATEWAY_MAC = "06:75:63:6c:6f:64"
GATEWAY_LINK_LOCAL = "fe80::1"
METADATA_IPV4 = "169.254.169.254"
METADATA_IPV6 = "fe80::a9fe:a9fe"
METADATA_PORT = 80

# The veth pair between a host and a gateway: the same addresses on every network, for they are never forwarded.
UPLINK_HOST_LINK_LOCAL = "fe80::1"
UPLINK_GATEWAY_LINK_LOCAL = "fe80::2"
# With these a host speaks to its VMs, also if it has no other address that a guest could answer.
UPLINK_HOST_IPV4 = "169.254.128.1"
UPLINK_HOST_IPV6 = "fd75:636c:6f75:6400::1"
# Gateways of networks without an IPv4 subnet have an address of these, to ask IPv4 name servers.
UPLINK_GATEWAY_IPV4 = "169.254.0.0/17"

# Devices inside a gateway namespace.
INSIDE_GUESTS = "guests"
INSIDE_UPLINK = "uplink"

VXLAN_IPV6_OVERHEAD_BYTES = 70

_UPLINK = re.compile("uup([0-9a-f]{3})[0-9a-f]{1,6}")


@dataclass(frozen=True, slots=True)
class DevicePrefixes:
    """How the names of all devices of one kind begin, for rules that match every one of them."""

    tap: str
    vxlan: str
    bridge: str
    gateway: str
    uplink: str
    underlay: str


@dataclass(frozen=True, slots=True)
class NetworkDevices:
    """The devices of one network on a host, and its gateway's namespace."""

    vxlan: str
    bridge: str
    gateway: str
    uplink: str
    namespace: str


def device_prefixes(tag: str) -> DevicePrefixes:
    return DevicePrefixes(f"ut{tag}", f"uvx{tag}", f"ubr{tag}", f"ugw{tag}", f"uup{tag}", f"uul{tag}")


def network_devices(tag: str, vni: int) -> NetworkDevices:
    prefixes = device_prefixes(tag)
    return NetworkDevices(
        vxlan=f"{prefixes.vxlan}{vni:x}",
        bridge=f"{prefixes.bridge}{vni:x}",
        gateway=f"{prefixes.gateway}{vni:x}",
        uplink=f"{prefixes.uplink}{vni:x}",
        namespace=f"{namespace_prefix(tag)}{vni:x}",
    )


def namespace_prefix(tag: str) -> str:
    return f"ucloud-{tag}-"


def tap_device(tag: str, nic_id: str) -> str:
    return f"{device_prefixes(tag).tap}{nic_id}"


def cloud_of_uplink(name: str) -> str:
    """The tag of the cloud that a device of this name is an uplink of, "" if it is none."""
    found = _UPLINK.fullmatch(name)
    return found.group(1) if found else ""


def gateway_ipv6(prefix: str) -> str:
    return str(IPv6Network(prefix)[1])


def gateway_ipv4(subnet: str) -> str:
    """The subnet's first address, "" without a subnet."""
    return str(IPv4Network(subnet)[1]) if subnet else ""


def uplink_ipv4(vni: int) -> str:
    """The IPv4 address of a gateway without an IPv4 subnet: 15 bits of the VNI, and never 169.254.169.254."""
    return str(IPv4Network(UPLINK_GATEWAY_IPV4)[vni & 0x7FFF])


def link_local_of(mac: str) -> str:
    """The link-local address that a guest makes of its MAC (EUI-64, RFC 4291 appendix A)."""
    return eui64_address("fe80::/64", mac)


def eui64_address(prefix: str, mac: str) -> str:
    """The address that SLAAC makes of a /64 (or any address in it, with ``/64``) and a MAC."""
    octets = bytes(int(octet, 16) for octet in mac.split(":"))
    identifier = bytes((octets[0] ^ 2,)) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(IPv6Address(int(IPv6Network(prefix, strict=False).network_address) | int.from_bytes(identifier, "big")))


def group_address(group_prefix: str, vni: int) -> str:
    """The IPv6 multicast group of a VNI: the prefix's /104 plus the VNI (100 → ff05::64)."""
    return str(IPv6Address(int(IPv6Address(group_prefix)) + vni))


def guest_mtu(underlay_mtu: int) -> int:
    return underlay_mtu - VXLAN_IPV6_OVERHEAD_BYTES


def dns_label(name: str) -> str:
    """``name`` as one label of a host name (RFC 1123): people's names may hold anything."""
    label = re.sub(r"[^a-z0-9-]+", "-", name.lower())[:63].strip("-")
    return label or "vm"
