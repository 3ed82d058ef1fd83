"""What dnsmasq reads. The golden text is the whole configuration of one network."""

from __future__ import annotations

from pathlib import Path

import pytest

from ucloud.model.network import Egress
from ucloud.model.wanted import WantedName, WantedNetwork, WantedNic
from ucloud.network.services import parse_name_servers, render_configuration, render_names, render_nic

GOLDEN = Path(__file__).parent / "golden"
WANTED = WantedNetwork(
    "network-a",
    "main",
    100,
    False,
    "fd00:1::/64",
    "10.0.0.0/24",
    Egress.NAT,
    (
        WantedName("web1", "02:00:00:00:00:02", "fd00:1::6", "10.0.0.6"),
        WantedName("evil\n192.0.2.1 bank.example", "02:00:00:00:00:01", "fd00:1::5"),
    ),
)


def test_configuration() -> None:
    text = render_configuration(WANTED, mtu=1430, domain="internal", forwarders=("192.0.2.53", "2001:db8::53"))

    assert text == (GOLDEN / "dnsmasq.conf").read_text()


def test_names_cannot_break_out_of_their_line() -> None:
    assert render_names(WANTED, domain="internal") == (
        "fd00:1::5 evil-192-0-2-1-bank-example.main.internal evil-192-0-2-1-bank-example\n"
        "10.0.0.6 web1.main.internal web1\n"
        "fd00:1::6 web1.main.internal web1\n"
    )


def test_nic() -> None:
    both = WantedNic("abcdefgh", "network-a", 100, "02:00:00:00:00:01", "fd00:1::5", "10.0.0.5")
    only6 = WantedNic("abcdefgh", "network-a", 100, "02:00:00:00:00:01", "fd00:1::5")

    assert render_nic(both, name="web,1") == "02:00:00:00:00:01,10.0.0.5,[fd00:1::5],web-1,1h\n"
    assert render_nic(only6) == "02:00:00:00:00:01,[fd00:1::5],1h\n"


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        ("nameserver 127.0.0.53\noptions edns0\n", ()),
        ("# c\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver fe80::1%eth0\n", ("192.0.2.1", "2001:db8::1")),
        ("nameserver\nnameserver ::1\nsearch a b", ()),
    ],
)
def test_name_servers(text: str, servers: tuple[str, ...]) -> None:
    assert parse_name_servers(text) == servers
