"""Guests on a host: addresses, names, metadata, the way out, and what is left at the end. Real devices and services."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.conftest import require
from tests.integration.guest_clients import ask_dhcp, ask_dhcp6, fetch, resolve
from tests.integration.lab_host import (
    HOST_IPV4,
    HOST_IPV6,
    OUTSIDE_IPV4,
    OUTSIDE_IPV6,
    Guest,
    LabHost,
    greeted_as,
    greeter,
    make_network,
    make_nic,
    make_vm,
    name_of,
    wait_for,
)
from ucloud.model.devices import METADATA_IPV4, METADATA_IPV6, UPLINK_HOST_IPV4, gateway_ipv6
from ucloud.model.network import Egress
from ucloud.model.wanted import WantedNetwork
from ucloud.system.sysctl import read_sysctl

KEY_A = "ssh-ed25519 AAAAkeyofa a@example"
KEY_B = "ssh-ed25519 AAAAkeyofb b@example"


@dataclass(frozen=True, slots=True)
class World:
    host: LabHost
    main: WantedNetwork
    private: WantedNetwork
    a: Guest
    b: Guest
    c: Guest
    outside: str


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    for part in ("root", "ip", "nft", "dnsmasq"):
        require(part)
    with LabHost() as host:
        outside = host.add_outside()
        main, private = make_network("main", 100, ipv4="10.77.0.0/24"), make_network("priv", 70000, egress=Egress.NONE)
        nics = [make_nic(main, ipv4="10.77.0.10"), make_nic(main, ipv4="10.77.0.11"), make_nic(private)]
        main = replace(main, names=(name_of("a", nics[0]), name_of("B two", nics[1])))
        a, b, c = [host.plug_guest(nic) for nic in nics]
        host.metadata.write_vm_documents(make_vm("a", nics[0], KEY_A), b"#!/bin/sh\n\xff")
        host.metadata.write_vm_documents(make_vm("b", nics[1], KEY_B), None)
        host.carry([main, private], nics)
        host.start_metadata()
        host.metadata.notify()
        for guest in (a, b):
            guest.add_address(f"{guest.nic.ipv4}/24")
            guest.run("ip", "route", "add", "default", "via", "10.77.0.1")
        for guest in (a, b, c):
            wait_for(lambda guest=guest: _has_slaac(guest))
        yield World(host, main, private, a, b, c, outside)


def _has_slaac(guest: Guest) -> bool:
    text = guest.run("ip", "-6", "addr", "show", "dev", "eth0", "scope", "global", "-tentative")
    return guest.nic.ipv6 in text and "default" in guest.run("ip", "-6", "route")


def test_dhcp_gives_the_claimed_address(world: World) -> None:
    options = world.a.do(lambda: ask_dhcp(world.a.nic.mac))

    assert socket.inet_ntoa(options[0]) == "10.77.0.10"
    assert socket.inet_ntoa(options[1]) == "255.255.255.0"
    assert socket.inet_ntoa(options[3]) == "10.77.0.1"
    assert socket.inet_ntoa(options[6]) == "10.77.0.1"
    assert int.from_bytes(options[26], "big") == 1430
    assert options[15] == b"main.internal"
    assert options[12] == b"a"
    assert options[121].startswith(bytes((32, 169, 254, 169, 254, 10, 77, 0, 1)))


def test_dhcpv6_gives_the_claimed_address(world: World) -> None:
    assert world.a.do(lambda: ask_dhcp6(world.a.nic.mac)) == world.a.nic.ipv6


def test_router_advertisement_gives_route_mtu_and_gateway(world: World) -> None:
    routes = world.a.run("ip", "-6", "route", "show", "default")

    assert "via fe80::1 dev eth0" in routes
    assert world.a.do(lambda: read_sysctl("net/ipv6/conf/eth0/mtu")) == "1430"


@pytest.mark.parametrize("ipv6", [False, True])
def test_names(world: World, ipv6: bool) -> None:
    gateway = gateway_ipv6(world.main.ipv6_prefix) if ipv6 else "10.77.0.1"
    own = world.b.nic.ipv6 if ipv6 else world.b.nic.ipv4

    def ask(name: str) -> list[str]:
        return world.a.do(lambda: resolve(gateway, name, ipv6=ipv6))

    assert ask("b-two.main.internal") == [own]
    assert ask("b-two") == [own]
    assert ask("gateway") == [gateway]
    assert ask("metadata") == [gateway if ipv6 else METADATA_IPV4]
    assert ask("nobody.main.internal") == []


def test_guests_reach_each_other_and_the_gateway(world: World) -> None:
    for address in (world.b.nic.ipv4, world.b.nic.ipv6, "10.77.0.1", gateway_ipv6(world.main.ipv6_prefix)):
        assert world.a.pings(address), address


@pytest.mark.parametrize("ipv6", [False, True])
def test_packets_of_full_size_pass(world: World, ipv6: bool) -> None:
    address, head = (world.b.nic.ipv6, 48) if ipv6 else (world.b.nic.ipv4, 28)

    assert world.a.run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(1430 - head), address)


def test_ipv4_fragments_pass(world: World) -> None:
    for address in (world.b.nic.ipv4, OUTSIDE_IPV4):
        assert world.a.run("ping", "-n", "-c", "1", "-W", "2", "-s", "4000", address)


def test_networks_do_not_reach_each_other(world: World) -> None:
    assert not world.a.pings(world.c.nic.ipv6)
    assert not world.c.pings(world.a.nic.ipv6)


@pytest.mark.parametrize(
    ("family", "there", "seen_as"),
    [(socket.AF_INET, OUTSIDE_IPV4, HOST_IPV4), (socket.AF_INET6, OUTSIDE_IPV6, HOST_IPV6)],
)
def test_way_out_is_translated(world: World, family: int, there: str, seen_as: str) -> None:
    with greeter(world.outside, family, 7000):
        assert world.a.do(lambda: greeted_as(there, 7000)) == seen_as
        if family == socket.AF_INET6:
            assert not world.c.connects(there, 7000), "a network without egress got out"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_guests_cannot_reach_the_host(world: World, family: int) -> None:
    own, link = (HOST_IPV6, "fd75:636c:6f75:6400::1") if family == socket.AF_INET6 else (HOST_IPV4, UPLINK_HOST_IPV4)
    with greeter(world.host.namespace, family, 7001):
        for guest in (world.a, world.c):
            for address in (own, link):
                assert not guest.connects(address, 7001), address
                assert not guest.pings(address), address


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_host_reaches_guests(world: World, family: int) -> None:
    guests = [world.a] if family == socket.AF_INET else [world.a, world.c]
    for guest in guests:
        with greeter(guest.namespace, family, 22):
            address = guest.nic.ipv4 if family == socket.AF_INET else guest.nic.ipv6
            assert world.host.do(lambda address=address: greeted_as(address, 22))


def test_outside_cannot_reach_guests(world: World) -> None:
    outside = Guest(world.outside, world.a.nic)
    outside.run("ip", "-6", "route", "replace", world.main.ipv6_prefix, "via", HOST_IPV6)
    outside.run("ip", "route", "replace", world.main.ipv4_subnet, "via", HOST_IPV4)

    assert not outside.pings(world.a.nic.ipv6)
    assert not outside.pings(world.a.nic.ipv4)


def test_metadata_is_the_callers_own(world: World) -> None:
    gateway = gateway_ipv6(world.main.ipv6_prefix)
    for address in (METADATA_IPV4, f"{METADATA_IPV6}%eth0", gateway, "10.77.0.1"):
        assert world.a.do(lambda address=address: fetch(address, "/ssh-keys")) == (200, f"{KEY_A}\n".encode()), address
        assert world.b.do(lambda address=address: fetch(address, "/ssh-keys")) == (200, f"{KEY_B}\n".encode()), address
    forged = {"X-Forwarded-For": world.b.nic.ipv6, "X-Instance-ID": "vm-b", "Host": "b"}
    assert world.a.do(lambda: fetch(gateway, "/ssh-keys", headers=forged))[1] == f"{KEY_A}\n".encode()


def test_metadata_in_openstack_form(world: World) -> None:
    def get(path: str) -> tuple[int, bytes]:
        return world.a.do(lambda: fetch(METADATA_IPV4, path))

    assert b"latest" in get("/openstack")[1]
    assert json.loads(get("/openstack/2018-08-27/meta_data.json")[1])["hostname"] == "a"
    assert get("/openstack/latest/user_data") == (200, b"#!/bin/sh\n\xff")
    assert get("/nothing")[0] == 404
    assert world.b.do(lambda: fetch(METADATA_IPV4, "/openstack/latest/user_data"))[0] == 404


def test_metadata_of_an_unknown_vm_is_nothing(world: World) -> None:
    assert world.c.do(lambda: fetch(f"{METADATA_IPV6}%eth0", "/ssh-keys"))[0] == 404


def test_changed_keys_are_seen_at_once(world: World) -> None:
    for key in ("ssh-ed25519 AAAAnew new", KEY_B):
        world.host.metadata.write_vm_documents(make_vm("b", world.b.nic, key), None)
        world.host.metadata.notify()
        assert world.b.do(lambda: fetch(METADATA_IPV4, "/ssh-keys"))[1] == f"{key}\n".encode()


def test_a_complete_network_needs_no_step(world: World) -> None:
    for network in (world.main, world.private):
        assert world.host.do(lambda network=network: world.host.network.ensure_network(network)) == ()
    nics = [guest.nic for guest in (world.a, world.b, world.c)]
    assert not world.host.do(lambda: world.host.firewall.ensure(nics, [world.main, world.private]))
    assert world.host.do(lambda: subprocess.run(["nft", "flush", "ruleset"], check=True).returncode) == 0
    assert world.host.do(lambda: world.host.firewall.ensure(nics, [world.main, world.private]))
