"""Rules as data and as text. The golden texts are whole tables, to be read by people."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ucloud.firewall import nft, rules
from ucloud.model.network import Egress
from ucloud.model.wanted import WantedNetwork, WantedNic

GOLDEN = Path(__file__).parent / "golden"
MAIN = WantedNetwork("network-a", "main", 100, False, "fd00:1::/64", "10.0.0.0/24", Egress.NAT)
PRIVATE = WantedNetwork("network-b", "priv", 70000, False, "fd00:2::/64", "", Egress.NONE)
NIC_A = WantedNic("aaaaaaaa", "network-a", 100, "02:00:00:00:00:01", "fd00:1::ff:fe00:1", "10.0.0.5")
NIC_B = WantedNic("bbbbbbbb", "network-b", 70000, "02:00:00:00:00:02", "fd00:2::7")


def host(*nics: WantedNic) -> rules.HostRules:
    return rules.host_rules(
        nics, (MAIN, PRIVATE), tag="0a0", vxlan_port=4789, refused=("192.0.2.0/24", "2001:db8::/64")
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("host.nft", nft.render_host(host(NIC_A, NIC_B))),
        ("host_empty.nft", nft.render_host(rules.host_rules((), (), tag="0a0", vxlan_port=4789))),
        ("gateway.nft", nft.render_gateway(rules.gateway_rules(MAIN))),
    ],
)
def test_golden(name: str, text: str) -> None:
    assert text == (GOLDEN / name).read_text()


def test_a_nics_own() -> None:
    assert rules.nic_rules(NIC_A, "0a0").ipv6 == ("fd00:1::ff:fe00:1", "fe80::ff:fe00:1")
    assert rules.nic_rules(NIC_B, "0a0").ipv6 == ("fd00:2::7", "fd00:2::ff:fe00:2", "fe80::ff:fe00:2")
    assert rules.nic_rules(NIC_B, "0a0").ipv4 == ()


def test_order_does_not_matter() -> None:
    assert host(NIC_A, NIC_B) == host(NIC_B, NIC_A)


def test_a_change_says_only_what_changed() -> None:
    text = nft.render_change(host(NIC_A), host(NIC_A, NIC_B))

    assert NIC_A.mac not in text
    assert text.count("\n") == 6
    assert all(line.startswith("add element bridge ucloud_0a0 ") for line in text.splitlines())
    assert nft.render_change(host(NIC_A), host(NIC_A)) == ""


def test_a_changed_nic_is_taken_away_first() -> None:
    text = nft.render_change(host(NIC_A), host(replace(NIC_A, ipv4="10.0.0.9")))

    verbs = [line.split()[0] for line in text.splitlines()]
    assert verbs == sorted(verbs, reverse=True)
    assert 'delete element bridge ucloud_0a0 ipv4 { "ut0a0aaaaaaaa" . 10.0.0.5 }' in text
    assert 'add element bridge ucloud_0a0 ipv4 { "ut0a0aaaaaaaa" . 10.0.0.9 }' in text
