"""What the kernel tells of its addresses and links, and what is made of it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from ucloud.system.own_networks import observe_own_networks, parse_fib_trie, parse_if_inet6, parse_ipv6_routes

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.77.0.0/24 2 0 2
        |-- 10.77.0.0
           /24 universe UNICAST
        |-- 10.99.0.0
           /16 universe BLACKHOLE
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
     +-- 198.51.100.0/24 2 0 2
        +-- 198.51.100.0/30 2 0 2
           |-- 198.51.100.0
              /24 link UNICAST
              /25 link UNICAST tos=16
           |-- 198.51.100.2
              /32 host LOCAL
        |-- 198.51.100.255
           /32 link BROADCAST
     |-- 128.0.0.0
        /1 link UNICAST
"""
IF_INET6 = """\
20010db8000000000000000000000002 04 40 00 82     eth0
20010db8000000010000000000000002 05 80 00 80     eth1
00000000000000000000000000000001 01 80 10 80       lo
"""
NONE = "0" * 32
IPV6_ROUTES = "\n".join(
    f"{destination} {length} {NONE} 00 {via} 00000100 00000002 00000000 {flags} {device}"
    for destination, length, via, flags, device in (
        ("20010db8000000000000000000000000", "40", NONE, "00000001", "eth0"),
        ("20010db8000000010000000000000000", "40", NONE, "00000001", "eth1"),
        ("20010db8000000020000000000000000", "40", "fe80" + "0" * 27 + "2", "00000003", "uup0a064"),
        ("20010db8000000030000000000000000", "30", NONE, "00200200", "lo"),
        (NONE, "00", NONE, "00000001", "tun0"),
        ("20000000000000000000000000000000", "03", NONE, "00000001", "tun0"),
    )
)


def test_ipv4_addresses_and_links_but_nothing_behind_a_router() -> None:
    assert parse_fib_trie(FIB_TRIE) == {
        ip_network(text) for text in ("127.0.0.0/8", "198.51.100.0/24", "198.51.100.0/25", "198.51.100.2/32")
    }


def test_ipv6_addresses_with_their_prefixes() -> None:
    assert parse_if_inet6(IF_INET6) == {
        ip_network(text) for text in ("2001:db8::/64", "2001:db8:0:1::2/128", "::1/128")
    }


def test_ipv6_links_but_nothing_behind_a_router() -> None:
    """An address of length 128 may be on a link whose prefix only the route tells."""
    assert parse_ipv6_routes(IPV6_ROUTES) == {ip_network(text) for text in ("2001:db8::/64", "2001:db8:0:1::/64")}


def test_this_machine() -> None:
    found = observe_own_networks()
    assert any(ip_address("127.0.0.1") in network for network in found)
    assert all(network.prefixlen > 3 for network in found)
