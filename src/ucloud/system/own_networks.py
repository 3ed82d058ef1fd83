"""This machine's own addresses and the prefixes on its links, as the kernel tells them below /proc. Reads only.

For a process that needs nothing else of the network (and so no netlink library). What is reached by a router is not in
it, nor are default routes, also not those in two halves (0.0.0.0/1) or of all global addresses (2000::/3).
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

from ucloud.errors import MissingPrerequisite

Network = IPv4Network | IPv6Network

# Of the calling thread, which may be in a namespace of its own.
_ROOT = Path("/proc/thread-self/net")
_DEFAULT_BITS = 3
_ROUTE_BY_GATEWAY = 0x2
_ROUTE_REJECTS = 0x200
_LEAF = re.compile(r"\|-- ([0-9.]+)")
_LENGTH = re.compile(r"/(\d+) (?:link UNICAST|host LOCAL)\b")


def observe_own_networks() -> tuple[Network, ...]:
    """All of them, in the namespace of the calling thread."""
    found: set[Network] = set(parse_fib_trie(_read("fib_trie")))
    if (_ROOT / "if_inet6").exists():  # not so on a kernel without IPv6
        found |= parse_if_inet6(_read("if_inet6"))
        found |= parse_ipv6_routes(_read("ipv6_route"))
    return tuple(sorted(found, key=str))


def parse_fib_trie(text: str) -> set[IPv4Network]:
    """A leaf's line has an address, the lines below it the lengths of prefixes that begin there."""
    found: set[IPv4Network] = set()
    address = ""
    for line in map(str.strip, text.splitlines()):
        leaf, length = _LEAF.match(line), _LENGTH.match(line)
        if leaf:
            address = leaf.group(1)
        elif length and address and int(length.group(1)) > _DEFAULT_BITS:
            found.add(IPv4Network(f"{address}/{length.group(1)}"))
    return found


def parse_if_inet6(text: str) -> set[IPv6Network]:
    lines = (line.split() for line in text.splitlines())
    return {_ipv6(words[0], words[2]) for words in lines if len(words) > 5}


def parse_ipv6_routes(text: str) -> set[IPv6Network]:
    """The prefixes on links."""
    lines = (line.split() for line in text.splitlines())
    return {_ipv6(words[0], words[1]) for words in lines if len(words) > 9 and _is_on_link(words[1], words[8])}


def _is_on_link(length: str, flags: str) -> bool:
    return int(length, 16) > _DEFAULT_BITS and not int(flags, 16) & (_ROUTE_BY_GATEWAY | _ROUTE_REJECTS)


def _ipv6(address: str, length: str) -> IPv6Network:
    return IPv6Network((IPv6Address(bytes.fromhex(address)), int(length, 16)), strict=False)


def _read(name: str) -> str:
    try:
        return (_ROOT / name).read_text()
    except OSError as error:
        raise MissingPrerequisite(
            f"failed to find this machine's own addresses: {_ROOT / name}: {error.strerror}", hint="mount /proc"
        ) from error
