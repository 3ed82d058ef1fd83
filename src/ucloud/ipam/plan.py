"""Pool arithmetic, pure: parsing and refusing subnets, picking free addresses, prefixes and VNIs.

Free numbers are picked at random, so that many creates at the same time seldom want the same one. What is excluded
from a subnet: its first address (the network itself, or the anycast of routers), the gateway behind it, and the last
(IPv4's broadcast, RFC 2526's reserved anycast in IPv6).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from ucloud.errors import Conflict, Exhausted, InvalidInput
from ucloud.model.devices import UPLINK_HOST_IPV6

Subnet = IPv4Network | IPv6Network
Choose = Callable[[int], int]  # like secrets.randbelow: a number below its argument

IPV6_PREFIX_BITS = 64
IPV4_BITS = range(16, 30)
VNIS = range(256, 2**24)
_TRIES = 64
_RESERVED_ANYCAST = 128  # RFC 2526: the highest 128 interface ids of a subnet

# What no network of the cloud may touch, and why.
RESERVED: tuple[tuple[Subnet, str], ...] = (
    (IPv4Network("0.0.0.0/8"), "this host (RFC 1122)"),
    (IPv4Network("127.0.0.0/8"), "loopback"),
    (IPv4Network("169.254.0.0/16"), "link-local, where metadata answers"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved"),
    (IPv6Network("::/8"), "unspecified, loopback and addresses with IPv4 inside"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fec0::/10"), "site-local, withdrawn by RFC 3879"),
    (IPv6Network("ff00::/8"), "multicast"),
    (IPv6Network(f"{UPLINK_HOST_IPV6}/64", strict=False), "between hosts and gateways"),
)

# What anybody may have. A subnet becomes a route on hosts: with any other, a user would take their traffic.
PRIVATE: tuple[Subnet, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
    IPv6Network("fc00::/7"),
)


def parse_ipv6_prefix(text: str) -> IPv6Network:
    """A /64. Raises InvalidInput."""
    try:
        network = IPv6Network(text, strict=False)
    except ValueError as error:
        raise InvalidInput(f"failed to read the IPv6 prefix {text!r}: {error}", field="ipv6_prefix") from error
    if network.prefixlen != IPV6_PREFIX_BITS:
        raise InvalidInput(
            f"failed to read the IPv6 prefix {text!r}: it is a /{network.prefixlen}",
            field="ipv6_prefix",
            hint="SLAAC needs a /64",
        )
    return network


def parse_ipv4_subnet(text: str) -> IPv4Network:
    """A subnet of /16 to /29; bits behind its length are cleared. Raises InvalidInput."""
    try:
        network = IPv4Network(text, strict=False)
    except ValueError as error:
        raise InvalidInput(f"failed to read the IPv4 subnet {text!r}: {error}", field="ipv4_subnet") from error
    if network.prefixlen > IPV4_BITS[-1]:
        raise InvalidInput(
            f"failed to read the IPv4 subnet {text!r}: a /{network.prefixlen} is too small",
            field="ipv4_subnet",
            hint="use a /29 or larger",
            code="subnet_too_small",
        )
    if network.prefixlen < IPV4_BITS[0]:
        raise InvalidInput(
            f"failed to read the IPv4 subnet {text!r}: a /{network.prefixlen} is too large",
            field="ipv4_subnet",
            hint="use a /16 or smaller",
        )
    return network


def check_free(subnet: Subnet, taken: Iterable[tuple[str, str]], *, field: str, public: Iterable[str] = ()) -> None:
    """Refuse a subnet that overlaps a reserved range or one of ``taken`` (subnet, who has it). Raises Conflict.

    One that is not private must lie inside one of ``public``, the site's own prefixes. Raises Conflict.
    """
    others = [(network, why) for network, why in RESERVED]
    others += [(ipaddress.ip_network(text), owner) for text, owner in taken]
    for other, owner in others:
        if subnet.version == other.version and subnet.overlaps(other):
            raise Conflict(
                f"failed to use {subnet} as {field}: it overlaps {other} ({owner})",
                hint="choose another subnet",
                code="subnet_overlaps",
            )
    if not any(_lies_in(subnet, allowed) for allowed in (*PRIVATE, *map(ipaddress.ip_network, public))):
        raise Conflict(
            f"failed to use {subnet} as {field}: it is neither private nor this site's own",
            hint="choose a private one, or have the operator add yours to network.public_prefixes",
            code="subnet_not_allowed",
        )


def _lies_in(subnet: Subnet, other: Subnet) -> bool:
    return subnet.version == other.version and subnet.overlaps(other) and subnet.prefixlen >= other.prefixlen


def pick_ipv6_prefix(site: str, taken: Collection[str], choose: Choose) -> IPv6Network:
    """A free /64 of the site's prefix. Raises Exhausted."""
    pool = IPv6Network(site)
    count = 1 << (IPV6_PREFIX_BITS - pool.prefixlen)
    used = [network for network in map(IPv6Network, taken) if network.overlaps(pool)]
    for index in _candidates(count, choose):
        start = int(pool.network_address) + (index << IPV6_PREFIX_BITS)
        prefix = IPv6Network((start, IPV6_PREFIX_BITS))
        if index and not any(prefix.overlaps(other) for other in used):
            return prefix
    raise Exhausted(f"failed to find a free /64 in {site}: all {count} are taken", hint="give a prefix yourself")


def pick_vni(taken: Collection[int], choose: Choose) -> int:
    for index in _candidates(len(VNIS), choose):
        if VNIS[index] not in taken:
            return VNIS[index]
    raise Exhausted("failed to find a free VNI: all are taken")


def pick_ipv4(subnet: str, taken: Collection[str], choose: Choose) -> str:
    """A free address of ``subnet``. Raises Exhausted."""
    network = IPv4Network(subnet)
    usable = network.num_addresses - 3
    for index in _candidates(usable, choose):
        address = str(network.network_address + 2 + index)
        if address not in taken:
            return address
    raise Exhausted(
        f"failed to find a free address in {subnet}: all {usable} are taken",
        hint="delete VMs or use another network",
    )


def check_fixed(subnet: str, address: str) -> str:
    """``address`` as we write it, if a NIC may have it. Raises Conflict."""
    network = ipaddress.ip_network(subnet)
    wanted = ipaddress.ip_address(address)
    if wanted.version != network.version or wanted not in network:
        raise Conflict(
            f"failed to use {address}: it is not in {subnet}",
            hint="leave it out to get a free one",
            code="address_not_in_subnet",
        )
    offset = int(wanted) - int(network.network_address)
    tail = 1 if isinstance(network, IPv4Network) else _RESERVED_ANYCAST
    if offset < 2 or offset >= network.num_addresses - tail:
        raise Conflict(
            f"failed to use {address}: it is one of the network's own addresses",
            hint="the first two and the last of a subnet are reserved",
            code="address_reserved",
        )
    return str(wanted)


def parse_ipv4(text: str) -> str:
    return str(IPv4Address(text))


def parse_ipv6(text: str) -> str:
    return str(IPv6Address(text))


def _candidates(count: int, choose: Choose) -> Iterable[int]:
    """Some random numbers below ``count``; then, if it can be counted through, all of them from a random start."""
    for _ in range(_TRIES):
        yield choose(count)
    if count <= 1 << 20:
        start = choose(count)
        yield from (index % count for index in range(start, start + count))
