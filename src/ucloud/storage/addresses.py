"""Which addresses a download may dial. Pure.

A URL comes from a user, the request from inside the cloud: without this check it would reach what only hosts may
reach. Own tables instead of ``ipaddress.is_global``: its answers have changed between Python releases.
Sources: the IANA special-purpose registries for IPv4 and IPv6.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_V4_REASONS = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared by a carrier"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
)
_V6_REASONS = (
    ("::1/128", "loopback"),
    ("::/96", "unspecified or IPv4-compatible"),
    ("64:ff9b:1::/48", "local translation"),
    ("100::/64", "discarded"),
    ("2001::/23", "reserved or a tunnel"),
    ("2001:db8::/32", "for documentation"),
    ("3fff::/20", "for documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
_V4_TABLE = tuple((IPv4Network(network), reason) for network, reason in _V4_REASONS)
_V6_TABLE = tuple((IPv6Network(network), reason) for network, reason in _V6_REASONS)
_MAPPED = IPv6Network("::ffff:0:0/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_NAT64 = IPv6Network("64:ff9b::/96")


def check_address(address: Address, forbidden: Collection[Network]) -> str | None:
    """Why ``address`` may not be dialled, or None. ``forbidden`` are the cloud's own networks."""
    for network in forbidden:
        if address in network:
            return f"inside {network}, a network of this cloud"
    if isinstance(address, IPv4Address):
        return next((reason for network, reason in _V4_TABLE if address in network), None)
    embedded = _embedded(address)
    if embedded is not None:
        reason = check_address(embedded, forbidden)
        return f"an envelope of {embedded}, which is {reason}" if reason else None
    return next((reason for network, reason in _V6_TABLE if address in network), None)


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a packet to this IPv6 address would reach in the end."""
    number = int(address)
    if address in _MAPPED or address in _NAT64 or address in _TRANSLATED:
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    return None
