"""A short run of all that many hosts are for, on real QEMU: a power-off, a cut, an etcd leader's death, a migration, a
drain. One lab for all; at the end its history must prove that nothing ran twice, and nothing may be left.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from ucloud.errors import Conflict
from ucloud.lab.driver import Lab
from ucloud.system.namespace import list_namespaces

PARTS = ("root", "etcd", "qemu", "nft", "ip", "dnsmasq")
WAIT_S = 60.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    for part in PARTS:
        require(part)
    with tempfile.TemporaryDirectory(prefix="ucm-", dir="/tmp") as directory:
        Path(directory).chmod(0o711)
        made = Lab(Path(directory) / "lab")
        try:
            made.up(hosts=3, etcd=3, apis=1, fence_s=2.25, timeout_s=90)
            made.create_vms(5, prefix="web", failover="restart")
            made.create_vms(1, prefix="local", failover="none")
            made.wait_all("running", timeout_s=WAIT_S)
            name = made.shape.name
            yield made
            made.faults.heal()
            violations = made.check()
        finally:
            made.down()
    assert violations == []
    assert not list_namespaces(f"{name}-")


def ucloud(lab: Lab, *words: str) -> Any:
    out = lab.run_inside("client", ["ucloud", *words, "--output", "json"])
    return json.loads(out) if out.strip() else None


def host_of(vm: dict[str, Any]) -> str:
    return str(vm["status"]["host_id"])


def starts(lab: Lab) -> Counter[str]:
    """How often each VM was started (a move is no start)."""
    events = lab.ask(lambda client: list(client.each("event")))
    return Counter(event["about_id"] for event in events if event["kind"] == "vm_started")


def settle(lab: Lab, host: str) -> None:
    lab.wait_host(host, "ready", timeout_s=WAIT_S)
    lab.wait_all("running", timeout_s=WAIT_S)


def test_a_running_vm_moves(lab: Lab) -> None:
    vm = lab.vm("web1")
    target = next(host for host in ("h1", "h2", "h3") if host != host_of(vm))
    before = starts(lab)
    ucloud(lab, "vm", "migrate", "web1", "--to", target, "--wait")
    lab.wait_vm("web1", "running", timeout_s=WAIT_S, host=target)
    assert starts(lab) == before, "it went on, it was not started anew"
    assert ucloud(lab, "vm", "migration", "web1")["phase"] == "done"


def test_the_death_of_the_etcd_leader_does_nothing_to_vms(lab: Lab) -> None:
    before, started = {vm["id"]: host_of(vm) for vm in lab.vms()}, starts(lab)
    lab.faults.etcd.kill_leader()
    ucloud(lab, "network", "create", "written-meanwhile")
    lab.wait(lambda: lab.etcd_leader() or None, "etcd has a leader", timeout_s=WAIT_S)
    assert {vm["id"]: host_of(vm) for vm in lab.wait_all("running", timeout_s=WAIT_S)} == before
    assert starts(lab) == started


@pytest.mark.parametrize("kind", ["power_off", "cut"])
def test_the_vms_of_a_lost_host_run_elsewhere(lab: Lab, kind: str) -> None:
    local = lab.vm("local1")
    host = next(host_of(vm) for vm in lab.vms() if host_of(vm) != host_of(local))
    lost = [vm["name"] for vm in lab.vms() if host_of(vm) == host]
    if kind == "power_off":
        lab.faults.power_off(host)
    else:
        lab.faults.cut(host)
    lab.wait_host(host, "taken_over", timeout_s=WAIT_S)
    for name in lost:
        assert host_of(lab.wait_vm(name, "running", timeout_s=WAIT_S)) != host
    lab.faults.heal()
    if kind == "power_off":
        lab.faults.power_on(host)
    settle(lab, host)


def test_a_vm_without_failover_waits_for_its_host(lab: Lab) -> None:
    vm, started = lab.vm("local1"), starts(lab)
    lab.faults.cut(host_of(vm))
    lab.wait_vm("local1", "lost", timeout_s=WAIT_S)
    lab.wait_host(host_of(vm), "taken_over", timeout_s=WAIT_S)
    with pytest.raises(Conflict) as refused:
        lab.ask(lambda client: client.update("vm", vm["id"], {"failover": "restart"}))
    assert refused.value.code == "host_lost"
    lab.faults.heal()
    settle(lab, host_of(vm))
    assert starts(lab)[vm["id"]] == started[vm["id"]], "nobody touched it"


def test_a_host_is_emptied_and_filled_again(lab: Lab) -> None:
    host = host_of(lab.vm("web2"))
    started = starts(lab)
    ucloud(lab, "host", "drain", host, "--stop", "--wait")
    left = [vm["name"] for vm in lab.vms() if host_of(vm) == host and vm["status"]["word"] == "running"]
    assert left == []
    ucloud(lab, "host", "undrain", host)
    settle(lab, host)
    assert set((starts(lab) - started).keys()) <= {lab.vm("local1")["id"]}, "they moved while they ran"
