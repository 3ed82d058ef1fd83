"""Which addresses a download may dial."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.storage.addresses import check_address

_OWN = (ip_network("2a0a:e5c0:1::/48"), ip_network("185.203.112.0/24"))


@pytest.mark.parametrize(
    "text",
    [
        "8.8.8.8",
        "100.63.255.255",
        "172.32.0.1",
        "2606:4700::1",
        "64:ff9b::808:808",
        "2002:808:808::1",
        "::ffff:8.8.8.8",
    ],
)
def test_public_addresses_may_be_dialled(text: str) -> None:
    assert check_address(ip_address(text), _OWN) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.0.9", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("192.168.0.1", "private"),
        ("169.254.169.254", "link-local"),
        ("100.64.0.1", "carrier"),
        ("224.0.0.1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "unspecified"),
        ("::1", "loopback"),
        ("::127.0.0.1", "IPv4-compatible"),
        ("fe80::a9fe:a9fe", "link-local"),
        ("fd00::1", "private"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("2001:db8::1", "documentation"),
        ("2001::1", "tunnel"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a00:1", "private"),
        ("64:ff9b:1::1", "translation"),
        ("2002:7f00:1::1", "loopback"),
        ("2002:c0a8:1::", "private"),
        ("2a0a:e5c0:1:2::3", "network of this cloud"),
        ("185.203.112.7", "network of this cloud"),
        ("::ffff:185.203.112.7", "network of this cloud"),
        ("64:ff9b::185.203.112.7", "network of this cloud"),
    ],
)
def test_inner_addresses_are_refused_with_a_reason(text: str, reason: str) -> None:
    assert reason in (check_address(ip_address(text), _OWN) or "allowed")


@given(st.integers(0, 2**32 - 1).map(IPv4Address))
def test_an_envelope_is_as_forbidden_as_its_content(address: IPv4Address) -> None:
    plain = check_address(address, _OWN) is None
    number = int(address)
    for prefix, shift in (("::ffff:0:0", 0), ("64:ff9b::", 0), ("2002::", 80)):
        envelope = IPv6Address(int(IPv6Network(f"{prefix}/96").network_address) | number << shift)
        assert (check_address(envelope, _OWN) is None) == plain


@given(st.integers(0, 2**128 - 1).map(IPv6Address))
def test_what_python_calls_inner_is_never_dialled(address: IPv6Address) -> None:
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_private:
        assert check_address(address, ()) is not None
