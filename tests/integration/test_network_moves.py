"""One network on three hosts: nothing but broadcast is flooded, and a guest that moves is found again at once.

A guest that moves is two namespaces with the same NIC: one was its place on the old host, one is that on the new one.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from tests.conftest import require
from tests.integration import frames as f
from tests.integration.capture import open_raw
from tests.integration.guest_clients import ask_dhcp
from tests.integration.lab_host import Guest, LabHost, Underlay, make_network, make_nic, wait_for
from ucloud.config.sections import NetworkSection
from ucloud.errors import MissingPrerequisite, NotFound
from ucloud.model.devices import network_devices
from ucloud.model.wanted import WantedNic, WantedPeer
from ucloud.network.plan import Step
from ucloud.system.forwards import Forward, keep_forwards, list_forwards
from ucloud.system.netlink import open_links
from ucloud.system.sysctl import disable_ipv6, read_sysctl

VNI = 0xABCDEF
NETWORK = make_network("main", VNI, ipv4="10.77.0.0/24")
_INNER = 14 + 40 + 8 + 8  # Ethernet, IPv6, UDP, VXLAN


@dataclass(frozen=True, slots=True)
class World:
    hosts: tuple[LabHost, ...]
    addresses: tuple[str, ...]

    def ensure(self, number: int, *peers: tuple[WantedNic, int]) -> tuple[Step, ...]:
        """What compose tells host ``number``: these NICs are on those other hosts."""
        wanted = tuple(WantedPeer(nic.mac, self.addresses[on]) for nic, on in peers)
        host = self.hosts[number]
        return host.do(lambda: host.network.ensure_network(replace(NETWORK, peers=wanted)))

    def forwards(self, number: int) -> dict[str, str]:
        host = self.hosts[number]

        def read() -> dict[str, str]:
            with open_links() as links:
                index = links.get(network_devices(host.tag, VNI).vxlan).index
            return {one.mac: one.address for one in list_forwards(index)}

        return host.do(read)


@pytest.fixture
def world() -> Iterator[World]:
    for part in ("root", "ip", "nft", "dnsmasq"):
        require(part)
    with contextlib.ExitStack() as stack:
        underlay = stack.enter_context(Underlay())
        settings = NetworkSection(underlay_device="wire")
        hosts = tuple(stack.enter_context(LabHost(settings)) for _ in range(3))
        addresses = tuple(underlay.connect(host, number) for number, host in enumerate(hosts, 1))
        yield World(hosts, addresses)


def place(world: World, number: int, nic: WantedNic) -> Guest:
    """A running guest."""
    guest = world.hosts[number].plug_guest(nic)
    world.hosts[number].carry([NETWORK], [nic])
    guest.add_address(f"{nic.ipv4}/24")
    guest.add_address(f"{nic.ipv6}/64")
    return guest


def new_nic(last: int) -> WantedNic:
    return make_nic(NETWORK, ipv4=f"10.77.0.{last}")


@contextlib.contextmanager
def ear(host: LabHost) -> Iterator[socket.socket]:
    def listen() -> socket.socket:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(f.IPV6))
        one.bind(("wire", 0))
        one.setblocking(False)
        return one

    with host.do(listen) as one:
        yield one


def tunnelled(one: socket.socket) -> list[bytes]:
    """The guests' frames that have come through the tunnel so far."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frame = one.recv(2000)
            if frame[20] == socket.IPPROTO_UDP and frame[56:58] == struct.pack("!H", 4789):
                found.append(frame[_INNER:])
    return found


def test_two_guests_reach_each_other_within_a_second(world: World) -> None:
    a, b = place(world, 0, new_nic(10)), place(world, 1, new_nic(11))
    started = time.monotonic()
    wait_for(lambda: a.pings(b.nic.ipv4, timeout_s=0.2))
    wait_for(lambda: b.pings(a.nic.ipv6, timeout_s=0.2))
    assert time.monotonic() - started < 1.0


def test_full_frames_pass_and_the_mtu_is_announced(world: World) -> None:
    a, b = place(world, 0, new_nic(10)), place(world, 1, new_nic(11))
    wait_for(lambda: a.pings(b.nic.ipv4))

    for address, size in ((b.nic.ipv4, 1430 - 28), (b.nic.ipv6, 1430 - 48)):
        assert a.run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(size), address)
        with pytest.raises(subprocess.CalledProcessError):
            a.run("ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", str(size + 1), address)
    assert int.from_bytes(a.do(lambda: ask_dhcp(a.nic.mac))[26], "big") == 1430
    wait_for(lambda: a.do(lambda: read_sysctl("net/ipv6/conf/eth0/mtu")) == "1430")


def test_unicast_is_not_flooded(world: World) -> None:
    """Also the first frame, to a guest that has never said anything."""
    a, b = place(world, 0, new_nic(10)), place(world, 1, new_nic(11))
    world.hosts[2].carry([NETWORK], [])
    world.ensure(0, (b.nic, 1))
    silent = f.ether(b.nic.mac, a.nic.mac, f.IPV4, f.ipv4(a.nic.ipv4, b.nic.ipv4, f.UDP, f.udp(9, 9)))

    with ear(world.hosts[1]) as second, ear(world.hosts[2]) as third, open_raw(a) as mouth:
        mouth.send(silent)
        wait_for(lambda: silent in tunnelled(second))
        assert a.run("ping", "-n", "-c", "20", "-i", "0.01", "-W", "2", b.nic.ipv4)
        seen = tunnelled(third)

    assert [frame for frame in seen if not frame[0] & 1] == []
    assert any(frame[:6] == b"\xff" * 6 for frame in seen), "broadcasts come, so that the line above means something"


def test_without_presets_the_unknown_is_flooded(world: World) -> None:
    a, b = place(world, 0, new_nic(10)), new_nic(11)
    world.hosts[2].carry([NETWORK], [])
    silent = f.ether(b.mac, a.nic.mac, f.IPV4, f.ipv4(a.nic.ipv4, b.ipv4, f.UDP, f.udp(9, 9)))

    with ear(world.hosts[2]) as third, open_raw(a) as mouth:
        mouth.send(silent)
        wait_for(lambda: silent in tunnelled(third))


def test_peers_alone_rebuild_nothing(world: World) -> None:
    b, c = new_nic(11), new_nic(12)
    world.hosts[0].carry([NETWORK], [])

    assert world.ensure(0, (b, 1), (c, 2)) == (Step.UPDATE_PEERS,)
    assert world.forwards(0) == {b.mac: world.addresses[1], c.mac: world.addresses[2]}
    assert world.ensure(0, (b, 1), (c, 2)) == ()
    assert world.ensure(0, (b, 2)) == (Step.UPDATE_PEERS,)
    assert world.forwards(0) == {b.mac: world.addresses[2]}
    assert world.ensure(0) == (Step.UPDATE_PEERS,)
    assert world.forwards(0) == {}


def test_what_was_learned_is_not_undone_by_old_news(world: World) -> None:
    """Not by the next pass either, nor by a new agent; news of the store are."""
    a, b = place(world, 0, new_nic(10)), place(world, 1, new_nic(11))
    b.do(lambda: disable_ipv6("eth0"))  # it says nothing unless it is told to
    world.ensure(0, (b.nic, 2))
    assert world.forwards(0)[b.nic.mac] == world.addresses[2]

    b.pings(a.nic.ipv4)

    assert world.forwards(0)[b.nic.mac] == world.addresses[1]
    keep_young(world.hosts[0], b.nic, world.addresses[2])
    assert world.ensure(0, (b.nic, 2)) == ()
    assert world.forwards(0)[b.nic.mac] == world.addresses[1]
    assert world.ensure(0, (b.nic, 0), (a.nic, 0)) == (Step.UPDATE_PEERS,), "peers on the host itself are none"
    assert b.nic.mac not in world.forwards(0)


def keep_young(host: LabHost, nic: WantedNic, address: str) -> None:
    """What a pass does with all presets once a minute."""

    def work() -> None:
        with open_links() as links:
            index = links.get(network_devices(host.tag, VNI).vxlan).index
        keep_forwards(index, [Forward(nic.mac, address)])

    host.do(work)


@pytest.mark.parametrize("announced", [True, False])
def test_a_guest_that_moves(world: World, announced: bool, record_property: Callable[[str, object], None]) -> None:
    """From the second host to the third, pinged from the first; and what the guest is told to be sent meanwhile."""
    a, old = place(world, 0, new_nic(10)), place(world, 1, new_nic(11))
    nic = old.nic
    source, target = world.hosts[1], world.hosts[2]
    world.ensure(0, (nic, 1))
    wait_for(lambda: a.pings(nic.ipv4))
    new, neighbour = target.plug_guest(nic), place(world, 2, new_nic(12))
    new.do(lambda: disable_ipv6("eth0"))  # a guest on its way says nothing
    world.ensure(2, (nic, 1))
    target.do(lambda: target.firewall.ensure([nic, neighbour.nic], [NETWORK]))
    assert target.do(lambda: target.network.ensure_nic(nic, pinned=False))
    new.add_address(f"{nic.ipv4}/24")
    wait_for(lambda: neighbour.pings(nic.ipv4))  # from the target's own host to the guest that still runs elsewhere
    assert a.pings(nic.ipv4)

    old.run("ip", "link", "set", "eth0", "down")  # its guest stands still
    stopped = time.monotonic()
    assert source.do(lambda: source.network.unplug_nic(nic.id))
    assert not source.do(lambda: source.network.unplug_nic(nic.id))
    unplugged = time.monotonic()
    target.do(lambda: target.network.pin_nic(nic))
    pinned = time.monotonic()
    if announced:
        with open_raw(new) as mouth:
            mouth.send(f.announcement(nic.mac))
    else:
        assert new.pings(a.nic.ipv4), "any frame tells where it is"
    wait_for(lambda: a.pings(nic.ipv4, timeout_s=0.05), timeout_s=5)
    flowing = time.monotonic()

    record_property("unplug_ms", round((unplugged - stopped) * 1000, 1))
    record_property("pin_ms", round((pinned - unplugged) * 1000, 1))
    record_property("gap_ms", round((flowing - stopped) * 1000, 1))
    print(f"unplug {unplugged - stopped:.4f} s, pin {pinned - unplugged:.4f} s, all {flowing - stopped:.4f} s")
    assert flowing - stopped < 1.0
    assert neighbour.pings(nic.ipv4)
    assert world.forwards(0)[nic.mac] == world.addresses[2]


def test_an_aborted_move(world: World) -> None:
    """The source's guest goes on, although the target has announced itself."""
    a, old = place(world, 0, new_nic(10)), place(world, 1, new_nic(11))
    source = world.hosts[1]
    wait_for(lambda: a.pings(old.nic.ipv4))
    source.do(lambda: source.network.unplug_nic(old.nic.id))
    assert not a.pings(old.nic.ipv4, timeout_s=0.2)

    assert source.do(lambda: source.network.ensure_nic(old.nic))

    wait_for(lambda: a.pings(old.nic.ipv4, timeout_s=0.1))


def test_what_is_not_connected_cannot_be_pinned(world: World) -> None:
    host, nic = world.hosts[0], new_nic(10)
    host.carry([NETWORK], [])
    with pytest.raises(NotFound):
        host.do(lambda: host.network.pin_nic(nic))
    host.plug_guest(nic)
    with pytest.raises(NotFound, match="not connected"):
        host.do(lambda: host.network.pin_nic(nic))


def test_the_underlay_address(world: World) -> None:
    host = world.hosts[0]
    assert host.do(host.network.underlay_address) == world.addresses[0]
    vxlan = network_devices(host.tag, VNI).vxlan
    host.carry([NETWORK], [])
    argv = ["ip", "-d", "link", "show", "dev", vxlan]
    text = host.do(lambda: subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    words = f"vxlan id {VNI} group ff05::ab:cdef local {world.addresses[0]} dev wire srcport 0 0 dstport 4789 ttl 64"
    assert words in text
    assert "udpcsum noudp6zerocsumtx noudp6zerocsumrx" in text


def test_an_underlay_that_is_too_small_is_said(world: World) -> None:
    host = world.hosts[0]
    host.do(lambda: subprocess.run(["ip", "link", "set", "wire", "mtu", "1400"], check=True))
    with pytest.raises(MissingPrerequisite, match="MTU of 1400"):
        host.do(lambda: host.network.ensure_network(NETWORK))
