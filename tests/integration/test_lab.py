"""A small lab: up, a cloud that works, faults and their undoing, a history that proves it, and nothing left."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from ucloud.lab import census, lifecycle, wires
from ucloud.lab.driver import Lab
from ucloud.lab.nodes import NodeKind
from ucloud.lab.status import examine
from ucloud.local.processes import is_running
from ucloud.system.namespace import list_namespaces, namespace_inode

HOSTS = 2


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that other users may pass through: QEMUs run as such."""
    with tempfile.TemporaryDirectory(prefix="ucloud-lab-") as directory:
        Path(directory).chmod(0o711)
        yield Path(directory)


@pytest.fixture(scope="module")
def lab(place: Path) -> Iterator[Lab]:
    for part in ("root", "etcd", "qemu", "nft", "ip", "dnsmasq"):
        require(part)
    lab = Lab(place / "lab")
    try:
        lab.up(hosts=HOSTS, etcd=1, apis=1, timeout_s=60)
        shape = lab.shape
        inodes = census.namespaces_of(shape.nodes)
        fast = lab.layout.fast
        yield lab
        lab.faults.heal()
        assert not lab.check()
    finally:
        if lab.layout.shape_file.exists():
            lab.down()
    assert not list_namespaces(f"{shape.name}-")
    assert not [found for node in shape.nodes if node.tag for found in list_namespaces(f"ucloud-{node.tag}-")]
    assert not census.residents(inodes)
    assert not fast.exists()
    assert not lab.layout.directory.exists()


def test_vms_run_on_all_hosts_and_commands_reach_them(lab: Lab) -> None:
    lab.create_vms(HOSTS, prefix="web", failover="restart")
    vms = lab.wait_all("running", timeout_s=60)
    assert {vm["status"]["host_id"] for vm in vms} == {"h1", "h2"}
    listed = json.loads(lab.run_inside("client", ["ucloud", "vm", "list", "-o", "json"]))
    assert {vm["name"] for vm in listed} == {"web1", "web2"}
    report = examine(lab)
    assert report.healthy, report
    assert sum(node.guests for node in report.nodes) == HOSTS


def test_up_again_changes_nothing(lab: Lab) -> None:
    def pids() -> set[int]:
        found = census.residents(census.namespaces_of(lab.nodes(NodeKind.HOST)))
        return {one.pid for one in found if "ucloud" in one.command}

    before = pids()
    lab.up(hosts=HOSTS, etcd=1, apis=1, timeout_s=60)
    assert pids() == before


def test_nothing_on_the_wires_has_an_ipv4_address(lab: Lab) -> None:
    for node in lab.shape.nodes:
        addresses = lab.run_inside(node.name, ["ip", "-4", "-json", "address", "show", "dev", "underlay"])
        assert not [one for one in json.loads(addresses or "[]") if one.get("addr_info")]
        assert not json.loads(lab.run_inside(node.name, ["ip", "-4", "-json", "address", "show", "dev", "lo"]) or "[]")


def test_a_cut_host_is_lost_and_comes_back(lab: Lab) -> None:
    lab.faults.cut("h1", peers=["etcd"])
    lab.wait_host("h1", "lost", timeout_s=10)
    assert [fault.kind for fault in lab.faults.active()] == ["cut"]
    lab.faults.heal()
    assert not lab.faults.active()
    lab.wait_host("h1", "ready", timeout_s=20)


def test_a_slow_cable_delays_and_heals(lab: Lab) -> None:
    address = lab.shape.node("h1").address
    lab.faults.slow("h1", delay_s=0.05, loss=0.0)
    slow = lab.run_inside("client", ["ping", "-q", "-c", "3", "-i", "0.1", address])
    lab.faults.heal()
    fast = lab.run_inside("client", ["ping", "-q", "-c", "3", "-i", "0.1", address])
    assert _average_ms(slow) > 100 > 20 > _average_ms(fast)


def _average_ms(text: str) -> float:
    return float(text.rsplit("=", 1)[1].split("/")[1])


def test_a_killed_agent_is_started_again_and_its_guest_runs_on(lab: Lab) -> None:
    guests = _guests(lab)
    lab.faults.kill("h2", "agent")
    lab.wait(lambda: not examine(lab).nodes[-2].missing, "the agent runs again", timeout_s=15)
    assert _guests(lab) == guests


def _guests(lab: Lab) -> set[int]:
    found = census.residents(census.namespaces_of(lab.nodes(NodeKind.HOST)))
    return {one.pid for one in found if one.name.startswith("qemu")}


def test_power_off_leaves_nothing_of_a_host_and_power_on_brings_it_back(lab: Lab) -> None:
    node = lab.shape.node("h2")
    inodes = census.namespaces_of((node,))
    lab.faults.power_off("h2")
    assert not census.residents(inodes)
    assert not namespace_inode(node.namespace)
    lab.wait_host("h2", "lost", timeout_s=10)
    lab.faults.power_on("h2")
    lab.wait_host("h2", "ready", timeout_s=20)
    lab.wait_all("running", timeout_s=60)


def test_a_killed_recorder_leaves_a_gap_that_is_told(lab: Lab, place: Path) -> None:
    """In a lab of its own, for its history is no proof any more."""
    other = Lab(place / "other")
    shape = other.up(hosts=1, etcd=1, apis=1, timeout_s=60)
    try:
        inodes = census.namespaces_of((shape.node("client"),))
        (recorder,) = [one for one in census.residents(inodes) if "lab record" in one.command]
        os.kill(recorder.pid, signal.SIGKILL)
        other.wait(lambda: not is_running(other.layout.run, lifecycle.RECORDER), "it has ended", timeout_s=5)
        lifecycle.ensure_recorder(other.layout, shape)
        assert [one.kind.value for one in other.check()] == ["incomplete"]
    finally:
        other.down()
    assert not list_namespaces(f"{shape.name}-")
    assert namespace_inode(wires.switch_namespace(lab.shape)), "the other lab was touched"
