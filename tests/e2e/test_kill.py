"""kill -9 of any process at any moment of a create or delete: the VM settles, and nothing of it stays behind."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cloud import Cloud

SEED = 20260131
VICTIMS = ("api", "scheduler", "agent")
MOMENTS_S = [round(random.Random(SEED + number).uniform(0.0, 0.6), 3) for number in range(9)]
ROUNDS = [(VICTIMS[number % 3], moment_s) for number, moment_s in enumerate(MOMENTS_S)]


@pytest.fixture
def started(cloud: Cloud) -> Iterator[None]:
    """All processes run before and after; a test may have killed some."""
    yield
    cloud.up()


def create(cloud: Cloud, name: str) -> dict[str, Any]:
    words = ("--image", "tiny", "--memory", "64M", "--network", "main", "--stop-timeout", "1s")
    made: dict[str, Any] = cloud.api("vm", "create", name, *words)
    return made


def after(seconds: float, cloud: Cloud, victim: str) -> threading.Timer:
    timer = threading.Timer(seconds, cloud.kill, (victim,))
    timer.start()
    return timer


@pytest.mark.parametrize(("victim", "moment_s"), ROUNDS)
def test_a_kill_at_any_moment_loses_and_leaves_nothing(
    cloud: Cloud, started: None, victim: str, moment_s: float
) -> None:
    timer = after(moment_s, cloud, victim)
    vm = create(cloud, "victim")
    timer.join()
    cloud.wait_word(vm["id"], "running")
    same = [one for one in cloud.api("vm", "list") if one["name"] == "victim"]
    assert [one["id"] for one in same] == [vm["id"]], "a repeated create makes one VM"
    assert len(cloud.qemu_pids()) == 1
    cloud.up()
    timer = after(moment_s, cloud, victim)
    cloud.api("vm", "delete", vm["id"], "--yes", "--wait")
    timer.join()
    cloud.wait(lambda: not cloud.vm_leftovers(), within_s=30, what=f"no leftovers: {cloud.vm_leftovers()}")


def test_the_network_leaves_the_host_after_its_last_vm(cloud: Cloud, started: None) -> None:
    shared = {name for name in cloud.devices() if name.startswith("uul")}
    cloud.wait(lambda: set(cloud.devices()) <= shared and not cloud.namespaces(), within_s=30, what="no devices")


def test_guests_that_have_nowhere_to_go_outlive_their_guard(cloud: Cloud, started: None) -> None:
    """The pool of one machine is nobody else's, so nothing can be started elsewhere, whatever was wished."""
    vm = create(cloud, "guarded")
    cloud.wait_word(vm["id"], "running")
    before, guard = cloud.qemu_pids(), cloud.pid("guard")
    cloud.kill("guard")
    cloud.wait(lambda: cloud.pid("guard") != guard, within_s=10, what="the guard runs again")
    cloud.wait_word(vm["id"], "running")
    assert cloud.qemu_pids() == before
    cloud.api("vm", "stop", vm["id"], "--wait")
    assert cloud.qemu_pids() == []
    cloud.api("vm", "delete", vm["id"], "--yes", "--wait")


def test_all_processes_killed_at_once(cloud: Cloud, started: None) -> None:
    """Also the supervisor: the next ``up`` finds a guest that never stopped."""
    vm = create(cloud, "survivor")
    cloud.wait_word(vm["id"], "running")
    before = cloud.qemu_pids()
    for victim in ("supervise", "api", "stream", "scheduler", "agent", "metadata", "etcd"):
        cloud.kill(victim)
    cloud.up()
    cloud.wait_word(vm["id"], "running")
    assert cloud.qemu_pids() == before
    cloud.api("vm", "delete", vm["id"], "--yes", "--wait")


def test_down_and_up_again(cloud: Cloud, started: None) -> None:
    """What was wanted running runs again; in between nothing is left."""
    vm = create(cloud, "returning")
    cloud.wait_word(vm["id"], "running")
    cloud.down(timeout_s=2)
    assert (cloud.devices(), cloud.namespaces(), cloud.tables()) == ([], [], [])
    assert cloud.pids_with(str(cloud.directory)) == []
    cloud.up()
    cloud.wait(cloud.qemu_pids, within_s=60, what="QEMU runs again")
    cloud.wait_word(vm["id"], "running")
    cloud.api("vm", "delete", vm["id"], "--yes", "--wait")
