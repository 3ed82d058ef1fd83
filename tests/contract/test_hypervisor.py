"""What every hypervisor must do: run on the fake one, and on QEMU under a real guard with a guest of 512 bytes."""

from __future__ import annotations

import contextlib
import datetime
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import require
from tests.contract.boot_sector import boot_sector
from tests.contract.guard_process import GuardProcess, guard_process, wait_for
from tests.unit.hypervisor.wishes import VM_ID, wanted
from ucloud.errors import Conflict, InvalidInput, NotFound
from ucloud.hypervisor.actions import Guest, Kill, Now, ObservedVm, Plan, Start
from ucloud.hypervisor.api import Hypervisor
from ucloud.hypervisor.fake import FakeHypervisor, FakeMachine
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.plan import plan_vm
from ucloud.hypervisor.qemu import open_hypervisor
from ucloud.hypervisor.record import End
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources
from ucloud.hypervisor.seen import summarise
from ucloud.model.seen import GuestState
from ucloud.model.vm import Power, Restart
from ucloud.model.wanted import WantedNic, WantedVm
from ucloud.system.clock import SystemClock
from ucloud.system.unix_socket import connect_unix


class Rig(Protocol):
    """A hypervisor, and what guests and accidents do to its VM."""

    hypervisor: Hypervisor

    def restart_agent(self) -> None: ...

    def resources(self) -> Resources: ...

    def now(self) -> Now: ...

    def power_off(self) -> None: ...

    def panic(self) -> None: ...

    def crash(self) -> None: ...

    def make_deaf(self) -> None: ...


class FakeRig:
    def __init__(self) -> None:
        self.machine = FakeMachine()
        self.hypervisor: Hypervisor = FakeHypervisor(self.machine)
        self._at_s = 1000.0

    def restart_agent(self) -> None:
        self.hypervisor = FakeHypervisor(self.machine)

    def resources(self) -> Resources:
        return Resources(Disk(DiskLayer("/pool/root.qcow2", "qcow2")))

    def now(self) -> Now:
        self._at_s += 0.1
        return Now(self._at_s, datetime.datetime.fromtimestamp(self._at_s, datetime.UTC))

    def power_off(self) -> None:
        self.machine.power_off(VM_ID)

    def panic(self) -> None:
        self.machine.panic(VM_ID)

    def crash(self) -> None:
        self.machine.crash(VM_ID)

    def make_deaf(self) -> None:
        self.machine.deaf.add(VM_ID)


class QemuRig:
    def __init__(self, guard: GuardProcess, directory: Path) -> None:
        self._guard = guard
        self._directory = directory
        self._clock = SystemClock()
        self.hypervisor: Hypervisor = open_hypervisor(guard.host)

    def restart_agent(self) -> None:
        self.hypervisor = open_hypervisor(self._guard.host)

    def resources(self) -> Resources:
        """A qcow2 overlay on a raw image, as storage makes them, owned by the VM's uid."""
        base, root = self._directory / "base.raw", self._directory / "root.qcow2"
        if not root.exists():
            base.write_bytes(boot_sector())
            base.chmod(0o644)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, root], check=True)
            uid = self.hypervisor.prepare(VM_ID).uid
            os.chown(root, uid, uid)
            root.chmod(0o600)
        disk = Disk(DiskLayer(str(root), "qcow2"), (DiskLayer(str(base), "raw"),))
        return Resources(disk, incarnation=self._guard.client.hello().incarnation)

    def now(self) -> Now:
        return Now(self._clock.monotonic_s(), self._clock.now())

    def power_off(self) -> None:
        self._type(b"p")

    def panic(self) -> None:
        self._type(b"n")

    def crash(self) -> None:
        process = self.hypervisor.observe(VM_ID).process
        assert process is not None
        os.kill(process.pid, signal.SIGSEGV)

    def make_deaf(self) -> None:
        self._type(b"d")

    def _type(self, letter: bytes) -> None:
        """Press a key until the guest, which takes a while to boot, has echoed it (or is gone)."""
        with connect_unix(self.hypervisor.serial_socket(VM_ID), 20.0) as console:
            console.settimeout(0.5)
            for _ in range(40):
                with contextlib.suppress(TimeoutError, ConnectionError):
                    console.sendall(letter)
                    if letter in console.recv(100):
                        return
        raise AssertionError("the guest does not answer")


@pytest.fixture(params=["fake", "qemu"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "fake":
        yield FakeRig()
        return
    require("root")
    require("qemu")
    with tempfile.TemporaryDirectory(prefix="ucloud-test-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # the VM's uid must reach its disk
        with guard_process(directory) as guard:
            yield QemuRig(guard, directory)


def step(rig: Rig, wish: WantedVm | None) -> tuple[Plan, ObservedVm]:
    """One pass."""
    observed = rig.hypervisor.observe(VM_ID)
    plan = plan_vm(wish, observed, rig.now())
    if isinstance(plan.action, Start):
        assert wish is not None
        rig.hypervisor.start(wish, plan.action, rig.resources(), rig.now())
    elif plan.action is not None:
        rig.hypervisor.apply(VM_ID, plan.action, rig.now())
    return plan, observed


def settle(rig: Rig, wish: WantedVm | None, state: GuestState) -> ObservedVm:
    """Pass after pass until the plan is empty and the state is ``state``."""

    def look() -> ObservedVm | None:
        plan, observed = step(rig, wish)
        return observed if plan.action is None and plan.state is state else None

    return wait_for(look)


def running(rig: Rig, wish: WantedVm) -> VmProcess:
    def look() -> VmProcess | None:
        observed = settle(rig, wish, GuestState.RUNNING)
        return observed.process if observed.guest is Guest.RUNNING else None

    return wait_for(look)


WISH = wanted(stop_timeout_s=30, restart=Restart.NEVER, memory_mib=64)


def test_a_vm_starts_and_says_what_it_is(rig: Rig) -> None:
    process = running(rig, WISH)
    assert (process.vm_id, process.generation, process.boots, process.running) == (VM_ID, 1, 1, True)
    machine = rig.hypervisor.read_machine(VM_ID)
    assert machine is not None
    observed = rig.hypervisor.observe(VM_ID)
    seen = summarise(plan_vm(WISH, observed, rig.now()), observed, WISH, machine=machine, previous=None, now=rig.now())
    assert (seen.state, seen.boots, seen.cpus, seen.memory_mib) == (GuestState.RUNNING, 1, 2, 64)
    assert seen.machine_type.startswith("pc-q35-")
    assert seen.qemu_version
    assert seen.started_at
    assert rig.hypervisor.vm_ids() == (VM_ID,)


def test_an_agent_that_comes_back_finds_its_vm(rig: Rig) -> None:
    before = running(rig, WISH)
    rig.restart_agent()
    assert running(rig, WISH).pid == before.pid


def test_the_power_button_stops_it(rig: Rig) -> None:
    running(rig, WISH)
    observed = settle(rig, replace(WISH, power=Power.STOPPED), GuestState.STOPPED)
    assert observed.process is None
    assert (observed.record.end, observed.record.end_detail) == (End.STOPPED, "powered off as asked")


def test_a_deaf_guest_is_killed_at_the_deadline(rig: Rig) -> None:
    running(rig, WISH)
    rig.make_deaf()
    observed = settle(rig, replace(WISH, power=Power.STOPPED, stop_timeout_s=1), GuestState.STOPPED)
    assert observed.process is None
    assert observed.record.end_detail.startswith("killed")


def test_a_guest_that_powers_itself_off_stays_off(rig: Rig) -> None:
    running(rig, WISH)
    rig.power_off()
    observed = settle(rig, WISH, GuestState.STOPPED)
    assert observed.record.end is End.POWERED_OFF


def test_a_power_off_while_no_agent_looks_is_known_later(rig: Rig) -> None:
    running(rig, WISH)
    rig.power_off()
    rig.restart_agent()
    assert settle(rig, WISH, GuestState.STOPPED).record.end is End.POWERED_OFF


def test_a_panic_is_a_crash(rig: Rig) -> None:
    running(rig, WISH)
    rig.panic()
    assert settle(rig, WISH, GuestState.CRASHED).record.end is End.CRASHED


def test_a_crash_is_noticed_and_restarted_by_policy(rig: Rig) -> None:
    before = running(rig, WISH)
    rig.crash()
    observed = settle(rig, WISH, GuestState.CRASHED)
    assert "signal 11" in observed.record.end_detail
    after = running(rig, replace(WISH, restart=Restart.ON_FAILURE))
    assert after.pid != before.pid
    record = rig.hypervisor.observe(VM_ID).record
    assert (record.restarts, record.boots) == (1, 1)


def test_a_reboot_keeps_the_machine_and_takes_the_new_sizes(rig: Rig) -> None:
    before, machine = running(rig, WISH), rig.hypervisor.read_machine(VM_ID)
    wish = replace(WISH, boots=2, cpus=1, spec_generation=2)
    after = wait_for(lambda: process if (process := running(rig, wish)).boots == 2 else None)
    assert after.pid != before.pid
    assert rig.hypervisor.read_machine(VM_ID) == machine
    record = rig.hypervisor.observe(VM_ID).record
    assert (record.cpus, record.spec_generation, record.restarts) == (1, 2, 0)


def test_a_kill_with_another_name_kills_nothing(rig: Rig) -> None:
    before = running(rig, WISH)
    for generation, boots in ((1, 2), (2, 1), (0, 1)):
        with pytest.raises(NotFound):
            rig.hypervisor.apply("vm-other", Kill(generation, boots), rig.now())
        with pytest.raises(NotFound):
            rig.hypervisor.apply(VM_ID, Kill(generation, boots), rig.now())
    assert running(rig, WISH).pid == before.pid


def test_what_runs_is_not_started_again(rig: Rig) -> None:
    before = running(rig, WISH)
    with pytest.raises(Conflict):
        rig.hypervisor.start(WISH, Start(1), rig.resources(), rig.now())
    assert running(rig, WISH).pid == before.pid


def test_a_tombstone_leaves_nothing(rig: Rig) -> None:
    running(rig, WISH)
    observed = settle(rig, replace(WISH, gone=True), GuestState.GONE)
    assert (observed.process, observed.has_files) == (None, False)
    assert rig.hypervisor.vm_ids() == ()


def test_a_nic_without_a_tap_is_refused(rig: Rig) -> None:
    nic = WantedNic("nic-a", "net-a", 100, "02:00:00:00:00:01", "fd00::1")
    with pytest.raises(InvalidInput, match="no tap for nic-a"):
        rig.hypervisor.start(replace(WISH, nics=(nic,)), Start(1), rig.resources(), rig.now())


def test_each_vm_has_a_uid_of_its_own(rig: Rig) -> None:
    uids = [rig.hypervisor.prepare(vm_id).uid for vm_id in (VM_ID, "vm-b", "vm-c", VM_ID)]
    assert uids == [600_000, 600_001, 600_002, 600_000]


@pytest.mark.parametrize("rig", ["qemu"], indirect=True)  # the fake has no console
def test_the_serial_console_and_its_log_are_for_root_only(rig: Rig) -> None:
    running(rig, WISH)
    rig.make_deaf()
    log = rig.hypervisor.serial_log(VM_ID)
    assert b"d" in wait_for(log.read_bytes)
    for path in (log, rig.hypervisor.serial_socket(VM_ID)):
        status = path.stat()
        assert (status.st_uid, status.st_mode & 0o777) == (0, 0o600)
