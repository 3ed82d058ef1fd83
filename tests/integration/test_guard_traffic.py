"""The traffic gate in a real kernel: device pairs stand in for taps, and the guard that holds the gate is frozen."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.guard_process import GuardProcess, guard_process, is_gone, wait_for
from ucloud.config.sections import GuardSection
from ucloud.errors import Error, InvalidInput
from ucloud.hypervisor.guard_protocol import Named, StartRequest, VmProcess
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover
from ucloud.system.namespace import ensure_namespace, in_namespace, remove_namespace
from ucloud.system.nft_elements import ElementsDoor, Family, Set, drop, put, refresh

UID = 600_125
F = 2.0
SLACK_S = 0.3
PORT = 4000


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Guest:
    """A namespace whose eth0 is the other end of ``tap``, a port of the host's bridge."""

    def __init__(self, host: str, index: int, tap: str) -> None:
        self.name, self.tap, self.address = f"{host}-{index}", tap, f"10.9.9.{index}"
        ensure_namespace(self.name)
        run("ip", "-n", host, "link", "add", tap, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "-n", host, "link", "set", tap, "master", "br0", "up")
        run("ip", "-n", self.name, "address", "add", f"{self.address}/24", "dev", "eth0")
        run("ip", "-n", self.name, "link", "set", "eth0", "up")
        self.socket = in_namespace(self.name, lambda: open_udp(self.address))

    def reaches(self, other: Guest | Host) -> bool:
        """Whether one of some packets to the other arrives soon."""
        with contextlib.suppress(BlockingIOError):
            while other.socket.recv(100):
                pass
        until_s = time.monotonic() + 0.06
        while time.monotonic() < until_s:
            with contextlib.suppress(OSError):
                self.socket.sendto(b"x", (other.address, PORT))
            time.sleep(0.005)
            with contextlib.suppress(BlockingIOError):
                return bool(other.socket.recv(100))
        return False

    def close(self) -> None:
        self.socket.close()
        remove_namespace(self.name)


class Host:
    """A namespace with a bridge, its own address on it, and two guests."""

    def __init__(self) -> None:
        self.name, self.address = f"gate-{os.getpid()}", "10.9.9.100"
        ensure_namespace(self.name)
        run("ip", "-n", self.name, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.name, "address", "add", f"{self.address}/24", "dev", "br0")
        run("ip", "-n", self.name, "link", "set", "br0", "up")
        self.mortal, self.lasting = Guest(self.name, 1, "tap-mortal"), Guest(self.name, 2, "tap-lasting")
        self.socket = in_namespace(self.name, lambda: open_udp(self.address))

    reaches = Guest.reaches

    def tables(self) -> str:
        return in_namespace(self.name, lambda: run("nft", "list", "tables"))

    def close(self) -> None:
        self.socket.close()
        for guest in (self.mortal, self.lasting):
            guest.close()
        remove_namespace(self.name)


def open_udp(address: str) -> socket.socket:
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    opened.bind((address, PORT))
    return opened


@pytest.fixture
def host() -> Iterator[Host]:
    for part in ("root", "ip", "nft"):
        require(part)
    made = Host()
    yield made
    made.close()


@pytest.fixture
def guard(host: Host) -> Iterator[GuardProcess]:
    section = GuardSection(fence_s=F)
    with (
        tempfile.TemporaryDirectory(prefix="ucloud-test-") as name,
        guard_process(Path(name), guard=section, namespace=host.name) as running,
    ):
        yield running


def start(guard: GuardProcess, vm_id: str, tap: str, failover: Failover, fence: Fence = Fence.LOCK) -> VmProcess:
    return guard.client.start(
        StartRequest(vm_id, 1, 1, failover, UID, UID, ("/bin/sleep", "1000"), taps=(tap,), pool_fence=fence)
    )


def flows(host: Host) -> set[str]:
    """Which ways are open of the mortal one's and of the other's."""
    ways = {
        "mortal to lasting": (host.mortal, host.lasting),
        "lasting to mortal": (host.lasting, host.mortal),
        "mortal to host": (host.mortal, host),
        "host to mortal": (host, host.mortal),
        "lasting to host": (host.lasting, host),
        "host to lasting": (host, host.lasting),
    }
    return {name for name, (sender, receiver) in ways.items() if sender.reaches(receiver)}


ALL = {f"{one} to {other}" for one in ("mortal", "lasting", "host") for other in ("mortal", "lasting", "host")}
ALL -= {"mortal to mortal", "lasting to lasting", "host to host"}
WITHOUT_MORTAL = {"lasting to host", "host to lasting"}


@pytest.mark.parametrize("fence", [Fence.LOCK, Fence.VERB])
def test_traffic_of_a_frozen_guard_stops_by_itself_and_only_the_mortals(
    host: Host, guard: GuardProcess, fence: Fence
) -> None:
    mortal = start(guard, "vm-a", host.mortal.tap, Failover.RESTART, fence)
    lasting = start(guard, "vm-b", host.lasting.tap, Failover.NONE)
    wait_for(lambda: flows(host) == ALL)
    still_open_s = time.monotonic() + 1.5 * F
    while time.monotonic() < still_open_s:
        assert host.mortal.reaches(host.lasting)
    os.kill(guard.pid, signal.SIGSTOP)
    frozen_s = time.monotonic()
    while host.mortal.reaches(host.lasting):
        assert time.monotonic() < frozen_s + F + SLACK_S
    assert time.monotonic() > frozen_s + F / 4
    assert flows(host) == WITHOUT_MORTAL
    assert not is_gone(mortal.pid)
    os.kill(guard.pid, signal.SIGCONT)
    if fence is Fence.LOCK:
        wait_for(lambda: is_gone(mortal.pid), timeout_s=1)
        wait_for(lambda: not guard.client.list("vm-a")[0].running)
        wait_for(lambda: flows(host) == ALL)  # the tap is nobody's now
    else:
        wait_for(lambda: flows(host) == ALL)  # evidence is back
        assert not is_gone(mortal.pid)
    assert not is_gone(lasting.pid)


def test_the_table_is_there_for_mortals_only_and_goes_with_the_guard(host: Host, guard: GuardProcess) -> None:
    start(guard, "vm-b", host.lasting.tap, Failover.NONE)
    assert "ucloud_guard" not in host.tables()
    start(guard, "vm-a", host.mortal.tap, Failover.RESTART)
    assert "ucloud_guard" in host.tables()
    guard.client.kill(Named("vm-a", 1, 1))
    guard.client.forget(Named("vm-a", 1, 1))
    start(guard, "vm-a", host.mortal.tap, Failover.RESTART)
    guard.end(signal.SIGKILL)
    wait_for(lambda: flows(host) == WITHOUT_MORTAL)
    guard.start()
    wait_for(lambda: "ucloud_guard" not in host.tables())
    start(guard, "vm-c", host.mortal.tap, Failover.RESTART)
    guard.end(signal.SIGTERM)
    assert "ucloud_guard" not in host.tables()


def test_elements(host: Host) -> None:
    live, missing = Set(Family.BRIDGE, "t", "live"), Set(Family.BRIDGE, "t", "missing")

    def elements() -> str:
        return run("nft", "list", "set", "bridge", "t", "live")

    def work() -> None:
        run("nft", "add table bridge t; add set bridge t live { type ifname; flags timeout; }")
        door = ElementsDoor()
        door.apply(refresh(live, ["a", "b"], timeout_ms=300))
        for _ in range(20):
            door.apply(refresh(live, ["a"], timeout_ms=300))
            time.sleep(0.02)
        assert '"a"' in elements()
        assert '"b"' not in elements()
        door.apply((*drop(live, ["a", "c"]), *put(live, ["d"])))
        assert '"d"' in elements()
        with pytest.raises(Error, match="No such file"):
            door.apply((*put(live, ["e"]), *put(missing, ["e"])))
        assert '"e"' not in elements()  # all or nothing
        for bad in ("", "x" * 16):
            with pytest.raises(InvalidInput):
                door.apply(put(live, [bad]))
        door.apply((*put(live, ["f"]), *put(live, [])))
        assert '"f"' in elements()
        door.close()

    in_namespace(host.name, work)


def test_three_thousand_taps_in_one_change(host: Host) -> None:
    names = [f"tap{number}" for number in range(3000)]
    live = Set(Family.BRIDGE, "t", "live")

    def work() -> list[int]:
        run("nft", "table bridge t { set live { type ifname; flags timeout; }; }")
        door = ElementsDoor()
        counts = []
        for changes in (put(live, names), refresh(live, names, timeout_ms=60_000), drop(live, names)):
            door.apply(changes)
            counts.append(run("nft", "list", "set", "bridge", "t", "live").count('"tap'))
        with pytest.raises(Error, match="No such file"):
            door.apply(refresh(Set(Family.BRIDGE, "t", "none"), names, timeout_ms=5))
        door.apply(put(live, names[:1]))
        door.close()
        return counts

    assert in_namespace(host.name, work) == [3000, 3000, 0]
