"""One network on two hosts: guests reach each other, gateways do not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import require
from tests.integration import frames as f
from tests.integration.capture import open_raw, receive_until
from tests.integration.guest_clients import ask_dhcp
from tests.integration.lab_host import (
    UNDERLAY_ONE,
    UNDERLAY_TWO,
    Guest,
    LabHost,
    greeted_as,
    greeter,
    make_network,
    make_nic,
    wait_for,
)
from ucloud.config.sections import NetworkSection
from ucloud.model.wanted import WantedNetwork
from ucloud.network.dnsmasq import stop_services
from ucloud.network.services import ServiceFiles


@dataclass(frozen=True, slots=True)
class World:
    one: LabHost
    two: LabHost
    network: WantedNetwork
    a: Guest
    b: Guest


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    for part in ("root", "ip", "nft", "dnsmasq"):
        require(part)
    settings = NetworkSection(underlay_device="wire")
    with LabHost(settings) as one, LabHost(settings) as two:
        one.connect_underlay(two)
        network = make_network("main", 0x1234AB, ipv4="10.77.0.0/24")
        nics = [make_nic(network, ipv4="10.77.0.10"), make_nic(network, ipv4="10.77.0.11")]
        a, b = one.plug_guest(nics[0]), two.plug_guest(nics[1])
        one.carry([network], nics[:1])
        two.carry([network], nics[1:])
        for guest in (a, b):
            guest.add_address(f"{guest.nic.ipv4}/24")
        wait_for(lambda: a.pings(b.nic.ipv4))
        yield World(one, two, network, a, b)


def test_guests_of_two_hosts_reach_each_other(world: World) -> None:
    wait_for(lambda: world.a.pings(world.b.nic.ipv6))
    assert world.b.pings(world.a.nic.ipv4)
    assert world.a.run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(1430 - 28), world.b.nic.ipv4)


def test_only_the_own_host_answers_dhcp(world: World) -> None:
    assert socket.inet_ntoa(world.a.do(lambda: ask_dhcp(world.a.nic.mac))[0]) == world.a.nic.ipv4
    world.two.do(lambda: world.two.network.ensure_nic(world.a.nic))
    stop_services(ServiceFiles(world.one.directory / "networks" / world.network.network_id))
    with pytest.raises(TimeoutError):
        world.a.do(lambda: ask_dhcp(world.a.nic.mac, timeout_s=1))
    world.one.do(lambda: world.one.network.ensure_network(world.network))
    assert world.a.do(lambda: ask_dhcp(world.a.nic.mac))


def test_guests_reach_no_other_host(world: World) -> None:
    """Nor could they pretend to be a tunnel's end: the underlay is refused as a whole."""
    world.a.run("ip", "route", "replace", "default", "via", "10.77.0.1")
    with greeter(world.two.namespace, socket.AF_INET, 7002):
        assert world.one.do(lambda: greeted_as(UNDERLAY_TWO, 7002)) == UNDERLAY_ONE
        assert not world.a.connects(UNDERLAY_TWO, 7002)


def test_gateway_frames_stay_on_their_host(world: World) -> None:
    own, address = world.a.nic.mac, world.a.nic.ipv4

    def question(source: str, target: str) -> bytes:
        return f.ether(f.BROADCAST, source, f.ARP, f.arp(1, (source, address), (f.BROADCAST, target)))

    with open_raw(world.b) as ear, open_raw(world.a) as mouth:
        # Looking for a stranger makes the gateway ask everybody.
        world.one.do(lambda: _send_to("10.77.0.77"))
        assert world.a.pings("10.77.0.1")
        mouth.send(question(own, "10.77.0.78"))
        seen = receive_until(ear, question(own, "10.77.0.78"))
    asked = [frame[38:42] for frame in seen if frame[12:14] == f.ARP.to_bytes(2, "big")]
    assert socket.inet_aton("10.77.0.77") not in asked


def _send_to(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.sendto(b"", (address, 9))
