"""What a hostile guest sends is not seen by its neighbour; what an honest one sends is. Real bridge, real rules.

Every attack is first seen to arrive with the rules off, so that "nothing arrived" means something.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

import pytest

from tests.conftest import require
from tests.integration import frames as f
from tests.integration.capture import open_raw, receive_until
from tests.integration.lab_host import Guest, LabHost, make_network, make_nic, wait_for
from ucloud.firewall.room import FirewallRoom
from ucloud.model.devices import GATEWAY_MAC, gateway_ipv6, link_local_of
from ucloud.model.wanted import WantedNetwork, WantedNic

STRANGER = "02:ba:d0:ba:d0:ba"


@dataclass(frozen=True, slots=True)
class World:
    host: LabHost
    network: WantedNetwork
    evil: Guest
    victim: Guest

    @property
    def nics(self) -> list[WantedNic]:
        return [self.evil.nic, self.victim.nic]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    for part in ("root", "ip", "nft", "dnsmasq"):
        require(part)
    with LabHost() as host:
        network = make_network("main", 100, ipv4="10.77.0.0/24")
        nics = [make_nic(network, ipv4="10.77.0.10"), make_nic(network, ipv4="10.77.0.11")]
        evil, victim = [host.plug_guest(nic) for nic in nics]
        host.carry([network], nics)
        yield World(host, network, evil, victim)


def arrivals(world: World, sent: list[bytes]) -> list[bytes]:
    """Which of the frames the victim's device gets. The end is known by an honest frame sent last."""
    own, address = world.evil.nic.mac, world.evil.nic.ipv4
    last = f.ether(f.BROADCAST, own, f.ARP, f.arp(1, (own, address), (own, "10.77.0.99")) + os.urandom(16))

    with open_raw(world.victim) as ear, open_raw(world.evil) as mouth:
        for frame in [*sent, last]:
            mouth.send(frame)
        got = receive_until(ear, last)
    return [one for one in sent if one in got]


def attacks(world: World) -> dict[str, bytes]:
    own, other = world.evil.nic, world.victim.nic
    own_ll, other_ll = link_local_of(own.mac), link_local_of(other.mac)
    gateway4, gateway6 = "10.77.0.1", gateway_ipv6(world.network.ipv6_prefix)

    def from_own(kind: int, payload: bytes, target: str = f.BROADCAST) -> bytes:
        return f.ether(target, own.mac, kind, payload)

    def six(payload: bytes) -> bytes:
        return from_own(f.IPV6, payload, f.ALL_NODES_MAC)

    advert = f.advertisement(own_ll, own.mac)
    plain_ra = six(f.ipv6(own_ll, f.ALL_NODES, f.ICMPV6, advert))
    dhcp6 = f.udp(547, 546)

    def claim(kind: int, source: str, claimed: str, mac: str, *, hops: int = 255) -> bytes:
        return six(f.icmpv6_packet(source, f.ALL_NODES, kind, f.neighbour(claimed, mac), hops=hops))

    def solicit(source: str, claimed: str, option: bytes = b"") -> bytes:
        return six(f.icmpv6_packet(source, f.ALL_NODES, 135, bytes(4) + IPv6Address(claimed).packed + option))

    return {
        "source MAC": f.ether(f.BROADCAST, STRANGER, f.IPV4, f.ipv4(own.ipv4, "10.77.0.255", f.UDP, f.udp(9, 9))),
        "gateway's MAC": f.ether(f.BROADCAST, GATEWAY_MAC, f.IPV4, f.ipv4(own.ipv4, "10.77.0.255", f.UDP, f.udp(9, 9))),
        "victim's MAC": f.ether(f.BROADCAST, other.mac, f.IPV4, f.ipv4(own.ipv4, "10.77.0.255", f.UDP, f.udp(9, 9))),
        "source IPv4": from_own(f.IPV4, f.ipv4("10.77.0.50", "10.77.0.255", f.UDP, f.udp(9, 9))),
        "victim's IPv4": from_own(f.IPV4, f.ipv4(other.ipv4, "10.77.0.255", f.UDP, f.udp(9, 9))),
        "IPv4 zero": from_own(f.IPV4, f.ipv4("0.0.0.0", "255.255.255.255", f.UDP, f.udp(9, 9))),
        "source IPv6": six(f.ipv6("fd00::1", f.ALL_NODES, f.UDP, f.udp(9, 9))),
        "victim's IPv6": six(f.ipv6(other.ipv6, f.ALL_NODES, f.UDP, f.udp(9, 9))),
        "victim's link-local": six(f.ipv6(other_ll, f.ALL_NODES, f.UDP, f.udp(9, 9))),
        "gateway's link-local": six(f.ipv6("fe80::1", f.ALL_NODES, f.UDP, f.udp(9, 9))),
        "IPv6 unspecified": six(f.ipv6("::", f.ALL_NODES, f.UDP, f.udp(9, 9))),
        "ARP reply for the gateway": from_own(f.ARP, f.arp(2, (own.mac, gateway4), (other.mac, other.ipv4))),
        "gratuitous ARP for the gateway": from_own(f.ARP, f.arp(1, (own.mac, gateway4), (f.BROADCAST, gateway4))),
        "ARP with another MAC inside": from_own(f.ARP, f.arp(2, (STRANGER, own.ipv4), (other.mac, other.ipv4))),
        "ARP reply from zero": from_own(f.ARP, f.arp(2, (own.mac, "0.0.0.0"), (other.mac, other.ipv4))),
        "reverse ARP": from_own(f.ARP, f.arp(4, (own.mac, own.ipv4), (own.mac, own.ipv4))),
        "announcement of the victim": from_own(f.RARP, f.arp(3, (other.mac, "0.0.0.0"), (other.mac, "0.0.0.0"))),
        "announcement for the victim": from_own(f.RARP, f.arp(3, (own.mac, "0.0.0.0"), (other.mac, "0.0.0.0"))),
        "announcement with an address": from_own(f.RARP, f.arp(3, (own.mac, own.ipv4), (own.mac, "0.0.0.0"))),
        "announcement to one": from_own(f.RARP, f.arp(3, (own.mac, "0.0.0.0"), (own.mac, "0.0.0.0")), other.mac),
        "RARP answer": from_own(f.RARP, f.arp(4, (own.mac, "0.0.0.0"), (own.mac, other.ipv4))),
        "announcement from the victim's MAC": f.announcement(other.mac),
        "DHCP offer": from_own(f.IPV4, f.ipv4(own.ipv4, "255.255.255.255", f.UDP, f.udp(67, 68))),
        "DHCP offer from another port": from_own(f.IPV4, f.ipv4(own.ipv4, "255.255.255.255", f.UDP, f.udp(9, 68))),
        "DHCP offer, first fragment": from_own(
            f.IPV4, f.ipv4(own.ipv4, "255.255.255.255", f.UDP, f.udp(67, 68), fragment=0x2000)
        ),
        "DHCPv6 advertise": six(f.ipv6(own_ll, f.ALL_NODES, f.UDP, dhcp6)),
        "DHCPv6 advertise from another port": six(f.ipv6(own_ll, f.ALL_NODES, f.UDP, f.udp(9, 546))),
        "DHCPv6 behind a header": six(
            f.ipv6(own_ll, f.ALL_NODES, f.DESTINATION, f.extension(f.UDP) + dhcp6),
        ),
        "IPv4 redirect": from_own(f.IPV4, f.ipv4(own.ipv4, other.ipv4, f.ICMPV4, b"\5\1\0\0" + bytes(32)), other.mac),
        "RA": plain_ra,
        "RA from the gateway's address": six(
            f.ipv6("fe80::1", f.ALL_NODES, f.ICMPV6, f.advertisement("fe80::1", own.mac))
        ),
        "RA in a fragment": six(f.ipv6(own_ll, f.ALL_NODES, f.FRAGMENT, f.fragment_header(f.ICMPV6) + advert)),
        "RA, first fragment": six(
            f.ipv6(own_ll, f.ALL_NODES, f.FRAGMENT, f.fragment_header(f.ICMPV6, more=True) + advert[:8])
        ),
        "RA, second fragment": six(
            f.ipv6(own_ll, f.ALL_NODES, f.FRAGMENT, f.fragment_header(f.ICMPV6, offset=8) + advert[8:])
        ),
        "RA behind a hop-by-hop header": six(
            f.ipv6(own_ll, f.ALL_NODES, f.HOP_BY_HOP, f.extension(f.ICMPV6) + advert),
        ),
        "RA behind a destination header": six(
            f.ipv6(own_ll, f.ALL_NODES, f.DESTINATION, f.extension(f.ICMPV6) + advert),
        ),
        "RA behind two headers": six(
            f.ipv6(own_ll, f.ALL_NODES, f.HOP_BY_HOP, f.extension(f.DESTINATION) + f.extension(f.ICMPV6) + advert),
        ),
        "RA with a VLAN tag": f.tagged(f.VLAN, plain_ra),
        "RA with a provider's tag": f.tagged(f.QINQ, plain_ra),
        "RA with two tags": f.tagged(f.VLAN, f.tagged(f.VLAN, plain_ra)),
        "RA over SNAP": f.snap(plain_ra),
        "honest packet with a VLAN tag": f.tagged(
            f.VLAN, from_own(f.IPV4, f.ipv4(own.ipv4, "10.77.0.255", f.UDP, f.udp(9, 9)))
        ),
        "IPv6 redirect": six(f.icmpv6_packet(own_ll, f.ALL_NODES, 137, bytes(36))),
        "NA for the gateway": claim(136, own_ll, gateway6, own.mac),
        "NA for the gateway's link-local": claim(136, own_ll, "fe80::1", own.mac),
        "NA for the victim": claim(136, own_ll, other.ipv6, own.mac),
        "NA for the own address with another MAC": claim(136, own_ll, own.ipv6, STRANGER),
        "NA from afar": claim(136, own_ll, own.ipv6, own.mac, hops=64),
        "NS with another MAC": solicit(own_ll, other.ipv6, b"\1\1" + f.mac_bytes(STRANGER)),
        "NS with a second option": solicit(own_ll, other.ipv6, (b"\1\1" + f.mac_bytes(own.mac)) * 2),
        "DAD for the victim": solicit("::", other.ipv6),
        "DAD for the gateway": solicit("::", gateway6),
        "MLD query": six(f.icmpv6_packet(own_ll, f.ALL_NODES, 130, bytes(20), hops=1)),
        "unknown protocol": from_own(0x88CC, bytes(50)),
    }


def honest(world: World) -> dict[str, bytes]:
    own, other = world.evil.nic, world.victim.nic
    own_ll = link_local_of(own.mac)

    def six(payload: bytes) -> bytes:
        return f.ether(f.ALL_NODES_MAC, own.mac, f.IPV6, payload)

    def solicit(source: str, option: bytes) -> bytes:
        return six(f.icmpv6_packet(source, f.ALL_NODES, 135, bytes(4) + IPv6Address(own.ipv6).packed + option))

    return {
        "ARP": f.ether(f.BROADCAST, own.mac, f.ARP, f.arp(1, (own.mac, own.ipv4), (f.BROADCAST, other.ipv4))),
        "ARP probe": f.ether(f.BROADCAST, own.mac, f.ARP, f.arp(1, (own.mac, "0.0.0.0"), (f.BROADCAST, own.ipv4))),
        "gratuitous ARP request": f.ether(
            f.BROADCAST, own.mac, f.ARP, f.arp(1, (own.mac, own.ipv4), ("00:00:00:00:00:00", own.ipv4))
        ),
        "gratuitous ARP reply": f.ether(
            f.BROADCAST, own.mac, f.ARP, f.arp(2, (own.mac, own.ipv4), (f.BROADCAST, own.ipv4))
        ),
        "announcement": f.announcement(own.mac),
        "unsolicited NA": six(f.icmpv6_packet(own.ipv6, f.ALL_NODES, 136, f.neighbour(own.ipv6, own.mac))),
        "IPv4": f.ether(other.mac, own.mac, f.IPV4, f.ipv4(own.ipv4, other.ipv4, f.UDP, f.udp(9, 9))),
        "IPv6": six(f.ipv6(own.ipv6, f.ALL_NODES, f.UDP, f.udp(9, 9))),
        "NA": six(f.icmpv6_packet(own_ll, f.ALL_NODES, 136, f.neighbour(own.ipv6, own.mac))),
        "NS": solicit(own_ll, b"\1\1" + f.mac_bytes(own.mac)),
        "DAD": solicit("::", b""),
        "DAD with a nonce": solicit("::", b"\x0e\1" + os.urandom(6)),
        "MLD report": six(
            f.ipv6(
                own_ll,
                "ff02::16",
                f.HOP_BY_HOP,
                b"\x3a\0\5\2\0\0\1\0" + f.icmpv6(own_ll, "ff02::16", 143, bytes(4)),
                hops=1,
            )
        ),
    }


def test_attacks_arrive_without_rules(world: World) -> None:
    """All but what br_netfilter alone would drop, so the test below means something."""
    world.host.do(world.host.firewall.remove_all)
    try:
        sent = attacks(world)
        got = arrivals(world, list(sent.values()))
        missing = {name for name, frame in sent.items() if frame not in got}
    finally:
        world.host.do(lambda: world.host.firewall.ensure(world.nics, [world.network]))

    assert missing == set()


def test_attacks_do_not_arrive(world: World) -> None:
    sent = attacks(world)
    got = arrivals(world, list(sent.values()))

    assert {name for name, frame in sent.items() if frame in got} == set()


def test_honest_frames_arrive(world: World) -> None:
    sent = honest(world)
    got = arrivals(world, list(sent.values()))

    assert {name for name, frame in sent.items() if frame not in got} == set()


def test_a_tap_without_rules_is_mute(world: World) -> None:
    world.host.do(lambda: world.host.firewall.ensure([world.victim.nic], [world.network]))
    try:
        assert not world.evil.pings(f"{link_local_of(world.victim.nic.mac)}%eth0")
    finally:
        world.host.do(lambda: world.host.firewall.ensure(world.nics, [world.network]))
    wait_for(lambda: world.evil.pings(f"{link_local_of(world.victim.nic.mac)}%eth0"))


def test_small_changes_lead_to_the_same_rules(world: World) -> None:
    """Adding, changing and removing NICs, against the same rules applied as a whole."""
    host, networks = world.host, [world.network]
    moved = replace(world.evil.nic, ipv4="10.77.0.12")
    for nics in ([world.victim.nic], [world.victim.nic, moved], [moved], world.nics):
        assert host.do(lambda nics=nics: host.firewall.ensure(nics, networks))
        assert not host.do(lambda nics=nics: host.firewall.ensure(nics, networks))
    stepwise = live_rules(host)

    assert host.do(lambda: FirewallRoom(host.settings).ensure(world.nics, networks))

    assert _words(stepwise) == _words(live_rules(host))


def live_rules(host: LabHost) -> str:
    argv = ["nft", "list", "ruleset"]
    return host.do(lambda: subprocess.run(argv, capture_output=True, check=True, text=True).stdout)


def _words(text: str) -> list[str]:
    """Sets are listed in no order."""
    return sorted(text.replace(",", " ").split())


def test_the_bridge_answers_nobody(world: World) -> None:
    """A frame to the bridge's own MAC would reach the host's addresses, whatever route it has."""
    bridge = world.host.do(lambda: subprocess.run(["ip", "-br", "link"], capture_output=True, text=True).stdout)
    mac = next(line.split()[2] for line in bridge.splitlines() if line.startswith("ubr"))
    world.evil.add_address("10.77.0.10/24")
    world.evil.run("ip", "neigh", "replace", "10.77.0.200", "lladdr", mac, "dev", "eth0", "nud", "permanent")
    world.host.do(lambda: subprocess.run(["ip", "addr", "add", "10.77.0.200/32", "dev", "lo"], check=True))

    assert not world.evil.pings("10.77.0.200")
    world.host.do(lambda: subprocess.run(["nft", "flush", "ruleset"], check=True))
    try:
        assert world.evil.pings("10.77.0.200"), "without rules the host answers, so the test above means something"
    finally:
        world.host.do(lambda: world.host.firewall.ensure(world.nics, [world.network]))
