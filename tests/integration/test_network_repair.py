"""Whatever is missing or half made comes back with the next pass, and a removal leaves nothing."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.conftest import require
from tests.integration import frames as f
from tests.integration.guest_clients import ask_dhcp
from tests.integration.lab_host import LabHost, make_network, make_nic
from ucloud.errors import Conflict, MissingPrerequisite
from ucloud.model.devices import network_devices
from ucloud.network.plan import Step
from ucloud.network.room import NetworkRoom
from ucloud.system.namespace import list_namespaces, remove_namespace
from ucloud.system.sysctl import ensure_sysctl, read_sysctl

NETWORK = make_network("main", 100, ipv4="10.77.0.0/24")
NIC = make_nic(NETWORK, ipv4="10.77.0.10")


@pytest.fixture
def host() -> Iterator[LabHost]:
    for part in ("root", "ip", "nft", "dnsmasq"):
        require(part)
    with LabHost() as one:
        yield one


def remove_link(host: LabHost, name: str) -> None:
    host.do(lambda: subprocess.run(["ip", "link", "del", name], check=True))


def pid_of(host: LabHost) -> int:
    return int((host.directory / "networks/network-main/dnsmasq.pid").read_text())


def kill_dnsmasq(host: LabHost) -> None:
    """Wait for its end as a whole: its sockets are closed after its memory is gone."""
    descriptor = os.pidfd_open(pid_of(host))
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        assert select.select([descriptor], [], [], 10)[0]
    finally:
        os.close(descriptor)


def undo_alias(host: LabHost, name: str) -> None:
    host.do(lambda: subprocess.run(["ip", "link", "set", name, "alias", "half"], check=True))


DAMAGES: dict[str, Callable[[LabHost], object]] = {
    "bridge gone": lambda host: remove_link(host, network_devices(host.tag, 100).bridge),
    "bridge half made": lambda host: undo_alias(host, network_devices(host.tag, 100).bridge),
    "vxlan gone": lambda host: remove_link(host, network_devices(host.tag, 100).vxlan),
    "vxlan half made": lambda host: undo_alias(host, network_devices(host.tag, 100).vxlan),
    "gateway gone": lambda host: remove_link(host, network_devices(host.tag, 100).gateway),
    "uplink gone": lambda host: remove_link(host, network_devices(host.tag, 100).uplink),
    "uplink half made": lambda host: undo_alias(host, network_devices(host.tag, 100).uplink),
    "underlay gone": lambda host: remove_link(host, f"uul{host.tag}"),
    "namespace gone": lambda host: remove_namespace(network_devices(host.tag, 100).namespace),
    "dnsmasq killed": kill_dnsmasq,
    "pid file gone": lambda host: (host.directory / "networks/network-main/dnsmasq.pid").unlink(),
    "names gone": lambda host: (host.directory / "networks/network-main/names.d/names").unlink(),
    "a new agent": lambda host: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_repair(host: LabHost, damage: str) -> None:
    guest = host.plug_guest(NIC)
    host.carry([NETWORK], [NIC])
    DAMAGES[damage](host)
    host.network = NetworkRoom(host.section, host.settings, host.firewall.gateway_rules)

    host.carry([NETWORK], [NIC])

    assert host.do(lambda: host.network.ensure_network(NETWORK)) == ()
    assert guest.do(lambda: ask_dhcp(NIC.mac))
    guest.add_address(f"{NIC.ipv4}/24")
    assert guest.pings("10.77.0.1", timeout_s=2)
    assert dnsmasqs_of(host) == 1


def dnsmasqs_of(host: LabHost) -> int:
    found = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout
    return sum(str(host.directory) in line and line.split()[1] == "dnsmasq" for line in found.splitlines())


class Killed(Exception):
    pass


class DyingRoom(NetworkRoom):
    """An agent that is killed before the step after its ``lives``th."""

    lives = 0

    def _apply(self, *work: object) -> None:
        if self.lives == 0:
            raise Killed
        self.lives -= 1
        super()._apply(*work)


def test_any_first_steps_are_continued(host: LabHost) -> None:
    dying = DyingRoom(host.section, host.settings, host.firewall.gateway_rules)
    for lives in range(5):
        dying.lives = lives
        with pytest.raises(Killed):
            host.do(lambda: dying.ensure_network(NETWORK))

        steps = host.do(lambda: host.network.ensure_network(NETWORK))

        assert steps[-1] == Step.START_SERVICES
        assert len(steps) == 5 - lives
        assert host.do(lambda: host.network.ensure_network(NETWORK)) == ()
        host.do(lambda: host.network.remove_network(NETWORK))


@pytest.mark.parametrize("lives", range(4))
def test_a_removal_cut_short_is_continued(host: LabHost, lives: int) -> None:
    dying = DyingRoom(host.section, host.settings, host.firewall.gateway_rules)
    host.carry([NETWORK], [])
    dying.lives = lives
    with pytest.raises(Killed):
        host.do(lambda: dying.remove_network(NETWORK))

    assert host.do(lambda: host.network.remove_network(NETWORK))

    assert host.do(lambda: host.network.remove_network(NETWORK)) == ()
    assert dnsmasqs_of(host) == 0


def test_removal_leaves_nothing(host: LabHost) -> None:
    before = host.do(lambda: read_sysctl("net/ipv4/ip_forward"))
    host.plug_guest(NIC)
    host.carry([NETWORK], [NIC])
    assert host.do(lambda: host.network.remove_nic(NIC.id))
    assert not host.do(lambda: host.network.remove_nic(NIC.id))

    assert host.do(lambda: host.network.remove_network(NETWORK))
    assert host.do(lambda: host.network.remove_network(NETWORK)) == ()

    assert host.do(host.network.observe).links == (f"uul{host.tag}",)
    assert dnsmasqs_of(host) == 0
    host.do(host.network.remove_all)
    host.do(host.firewall.remove_all)
    assert host.do(host.network.observe).links == ()
    assert list_namespaces(f"ucloud-{host.tag}-") == []
    assert host.do(lambda: subprocess.run(["nft", "list", "tables"], capture_output=True, check=True).stdout) == b""
    assert host.do(lambda: read_sysctl("net/ipv4/ip_forward")) == before
    assert list((host.directory / "networks").iterdir()) == []


def test_forwarding_keeps_the_hosts_own_default_route(host: LabHost) -> None:
    host.add_outside()
    host.do(lambda: ensure_sysctl("net/ipv6/conf/world/accept_ra", "1"))
    host.carry([NETWORK], [])
    assert host.do(lambda: read_sysctl("net/ipv6/conf/world/accept_ra")) == "2"
    host.do(host.network.remove_all)
    assert host.do(lambda: read_sysctl("net/ipv6/conf/world/accept_ra")) == "1"


def test_a_changed_network_is_made_again(host: LabHost) -> None:
    host.carry([NETWORK], [])
    changed = replace(NETWORK, name="other", ipv4_subnet="10.78.0.0/24")

    steps = host.do(lambda: host.network.ensure_network(changed))

    assert Step.MAKE_GATEWAY in steps
    assert Step.START_SERVICES in steps
    assert Step.MAKE_BRIDGE not in steps


def test_tap(host: LabHost) -> None:
    """A real tap: mute until it is attached, gone with its descriptor, refused to a second user."""
    host.carry([NETWORK], [])
    guest = host.plug_guest(make_nic(NETWORK, ipv4="10.77.0.11"))
    descriptor = host.do(lambda: host.network.open_tap(NIC))
    try:
        with pytest.raises(Conflict, match="holds it"):
            host.do(lambda: host.network.open_tap(NIC))
        host.carry([NETWORK], [NIC, guest.nic])
        guest.add_address("10.77.0.11/24")
        guest.do(lambda: subprocess.run(["ping", "-c", "1", "-W", "0.2", NIC.ipv4], capture_output=True, check=False))
        assert _asked_for(descriptor, NIC.ipv4)
        assert host.network.tap_name(NIC.id) in host.do(host.network.observe).links
    finally:
        os.close(descriptor)
    assert host.network.tap_name(NIC.id) not in host.do(host.network.observe).links


def _asked_for(descriptor: int, address: str) -> bool:
    """Whether an ARP question for ``address`` is among what the tap has (behind its header of 10 bytes)."""
    frames = []
    while True:
        try:
            frames.append(os.read(descriptor, 4096)[10:])
        except BlockingIOError:
            break
    wanted = f.arp(1, ("00:00:00:00:00:00", "0.0.0.0"), ("00:00:00:00:00:00", address))[-4:]
    return any(frame[12:14] == b"\x08\x06" and frame[38:42] == wanted for frame in frames)


def test_a_missing_underlay_is_said(host: LabHost) -> None:
    settings = type(host.settings)(tag=host.tag, underlay_device="nothing0")
    room = NetworkRoom(host.section, settings, host.firewall.gateway_rules)

    with pytest.raises(MissingPrerequisite, match="nothing0"):
        host.do(lambda: room.ensure_network(NETWORK))
