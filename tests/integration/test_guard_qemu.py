"""QEMU under the guard: its cage, its end with the guard, its adoption, and the watcher of its events."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.guard_process import GuardProcess, guard_process, is_gone, wait_for
from tests.contract.test_hypervisor import WISH, QemuRig, running, settle, step
from tests.unit.hypervisor.wishes import VM_ID
from ucloud.hypervisor.actions import Guest
from ucloud.hypervisor.changes import record_halt
from ucloud.hypervisor.directory import VmDirectories
from ucloud.hypervisor.halt import halt_all
from ucloud.hypervisor.qemu import QemuHypervisor
from ucloud.hypervisor.record import End
from ucloud.hypervisor.watcher import GuestWatcher
from ucloud.model.seen import GuestState
from ucloud.model.vm import Failover, Restart
from ucloud.system.clock import SystemClock
from ucloud.system.process_unix import read_boot_id


@pytest.fixture
def guard() -> Iterator[GuardProcess]:
    require("root")
    require("qemu")
    with tempfile.TemporaryDirectory(prefix="ucloud-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with guard_process(directory) as started:
            yield started


@pytest.fixture
def rig(guard: GuardProcess) -> QemuRig:
    return QemuRig(guard, guard.host.state_directory)


def test_qemu_is_caged(rig: QemuRig) -> None:
    process = running(rig, WISH)
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    machine = rig.hypervisor.read_machine(VM_ID)
    assert machine is not None
    assert status["Uid"].split() == [str(machine.uid)] * 4
    assert status["Seccomp"].strip() == "2"
    assert status["NoNewPrivs"].strip() == "1"
    assert int(status["CapEff"], 16) == 0
    opened = {str(path.readlink()) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
    files = {path for path in opened if path.startswith("/") and not path.startswith("/dev/")}
    assert {Path(path).name for path in files} == {f"{VM_ID}.log", "serial.log", "root.qcow2", "base.raw"}


@pytest.mark.parametrize("restart", list(Restart))
def test_after_the_guard_died_its_vm_is_started_again_whatever_the_policy(
    guard: GuardProcess, rig: QemuRig, restart: Restart
) -> None:
    wish = replace(WISH, restart=restart)
    before = running(rig, wish)
    guard.end(signal.SIGKILL)
    plan, observed = step(rig, wish)
    assert (plan.state, plan.action) == (GuestState.UNKNOWN, None)
    assert observed.unknown
    wait_for(lambda: is_gone(before.pid))
    guard.start()
    after = running(rig, wish)
    assert after.pid != before.pid
    assert rig.hypervisor.observe(VM_ID).record.restarts == 0


def test_a_vm_without_failover_runs_through_the_guards_restart(guard: GuardProcess, rig: QemuRig) -> None:
    wish = replace(WISH, failover=Failover.NONE)
    before = running(rig, wish)
    guard.end(signal.SIGKILL)
    guard.start()
    rig.restart_agent()
    assert running(rig, wish) == before
    rig.power_off()
    assert settle(rig, wish, GuestState.STOPPED).record.end is End.POWERED_OFF
    assert is_gone(before.pid)


def test_an_adopted_vm_that_crashes_is_restarted(guard: GuardProcess, rig: QemuRig) -> None:
    wish = replace(WISH, failover=Failover.NONE, restart=Restart.ON_FAILURE)
    before = running(rig, wish)
    guard.end(signal.SIGKILL)
    guard.start()
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: is_gone(before.pid))
    assert wait_for(lambda: process if (process := running(rig, wish)).pid != before.pid else None)
    assert rig.hypervisor.observe(VM_ID).record.restarts == 1


def test_qemu_that_cannot_begin_says_why(rig: QemuRig) -> None:
    """Its disk belongs to somebody else."""
    disk = Path(rig.resources().disk.top.location)
    os.chown(disk, 1, 1)
    observed = settle(rig, WISH, GuestState.CRASHED)
    assert "Permission denied" in observed.record.end_detail


def test_an_agent_that_died_before_the_guard_heard_of_it(guard: GuardProcess, rig: QemuRig) -> None:
    """The record says that boot 1 was started, but nothing runs: it is started."""
    running(rig, WISH)
    process = rig.hypervisor.observe(VM_ID).process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not guard.client.list(VM_ID)[0].running)
    (guard.host.run_directory / f"guard/{VM_ID}.json").unlink()
    guard.end(signal.SIGKILL)
    guard.start()
    assert running(rig, WISH).pid != process.pid


@pytest.mark.parametrize("restart", list(Restart))
@pytest.mark.parametrize("failover", list(Failover))
def test_a_stop_of_the_whole_cloud_is_no_wish(
    guard: GuardProcess, rig: QemuRig, restart: Restart, failover: Failover
) -> None:
    """What was wanted running runs again, whatever the policy, and it does not count as a crash."""
    wish = replace(WISH, restart=restart, failover=failover)
    before = running(rig, wish)
    halt(guard)
    assert is_gone(before.pid)
    guard.end(signal.SIGTERM)
    guard.start()
    assert running(rig, wish).pid != before.pid
    assert rig.hypervisor.observe(VM_ID).record.restarts == 0


def test_a_deaf_guest_is_killed_by_the_stop_and_runs_again(guard: GuardProcess, rig: QemuRig) -> None:
    before = running(rig, WISH)
    rig.make_deaf()
    halt(guard, timeout_s=0.5)
    assert is_gone(before.pid)
    assert running(rig, WISH).pid != before.pid


def test_a_stop_does_not_hide_that_a_guest_had_ended_by_itself(guard: GuardProcess, rig: QemuRig) -> None:
    running(rig, WISH)
    rig.power_off()
    wait_for(lambda: rig.hypervisor.observe(VM_ID).guest is Guest.POWERED_OFF)
    halt(guard)
    assert settle(rig, WISH, GuestState.STOPPED).record.end is End.POWERED_OFF


def test_a_guest_that_outlives_an_interrupted_stop_is_as_before(guard: GuardProcess, rig: QemuRig) -> None:
    """The stop was noted and nothing else: once its time is over, the guest's own power-off counts again."""
    running(rig, WISH)
    directories = VmDirectories(guard.host.state_directory, guard.host.run_directory, host_boot_id=read_boot_id())
    record = directories.read_record(VM_ID)
    directories.write_record(record_halt(record, 0.0, rig.now()))
    running(rig, WISH)
    assert directories.read_record(VM_ID) == record
    rig.power_off()
    assert settle(rig, WISH, GuestState.STOPPED).record.end is End.POWERED_OFF


def test_a_vm_whose_files_are_damaged_is_stopped_too(guard: GuardProcess, rig: QemuRig) -> None:
    process = running(rig, WISH)
    (guard.host.state_directory / "vms" / VM_ID / "record.json").write_text("{")
    halt(guard)
    assert is_gone(process.pid)


def halt(guard: GuardProcess, *, timeout_s: float = 20.0) -> None:
    directories = VmDirectories(guard.host.state_directory, guard.host.run_directory, host_boot_id=read_boot_id())
    halt_all(guard.client, directories, SystemClock(), timeout_s=timeout_s, say=lambda _: None)


@pytest.mark.parametrize("happening", ["power_off", "panic", "crash"])
def test_the_watcher_wakes_at_once(rig: QemuRig, happening: str) -> None:
    woken = threading.Event()
    vm_ids: list[str] = []

    def wake(vm_id: str) -> None:
        vm_ids.append(vm_id)
        woken.set()

    assert isinstance(rig.hypervisor, QemuHypervisor)
    watcher = GuestWatcher(wake)
    try:
        process = running(rig, WISH)
        for _ in range(2):
            watcher.watch(VM_ID, pid=process.pid, path=rig.hypervisor.events_socket(VM_ID))
        getattr(rig, happening)()
        assert woken.wait(5)
        assert set(vm_ids) == {VM_ID}
        watcher.watch(VM_ID, pid=process.pid + 1, path=Path("/nonexistent/events.sock"))
        watcher.forget(VM_ID)
        watcher.forget("vm-unknown")
    finally:
        watcher.close()
