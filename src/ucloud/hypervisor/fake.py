"""A hypervisor without QEMU, for tests of whoever uses one: same doors, same records, same plans.

``FakeMachine`` is what survives an agent (processes, files); ``FakeHypervisor`` is what dies with it. The contract
tests run on this one and the real one alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from ucloud.errors import Conflict, GuestError, InvalidInput, NotFound, Unavailable
from ucloud.hypervisor import changes
from ucloud.hypervisor.actions import (
    Action,
    CancelSend,
    Collect,
    Continue,
    Guest,
    Kill,
    Listen,
    Now,
    ObservedVm,
    PowerDown,
    Quit,
    Remove,
    Resume,
    Send,
    Start,
)
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.machine import lowest_free_uid, new_machine, settled_machine, with_nics
from ucloud.hypervisor.migration_status import MigrationStatus, Transfer
from ucloud.hypervisor.record import VmRecord
from ucloud.hypervisor.resources import Resources
from ucloud.model.machine import Machine
from ucloud.model.wanted import WantedVm

_VERSION = "7.2.0"
_MACHINE_TYPE = "pc-q35-7.2"
_SIGKILL, _SIGSEGV = 9, 11


@dataclass(slots=True)
class FakeMachine:
    """A host's memory and disk. The methods below are what guests and accidents do."""

    directory: Path = Path("/nonexistent")
    uid_base: int = 600_000
    records: dict[str, VmRecord] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    processes: dict[str, VmProcess] = field(default_factory=dict)
    guests: dict[str, Guest] = field(default_factory=dict)
    resources: dict[str, Resources] = field(default_factory=dict)
    starts: list[tuple[str, int, int]] = field(default_factory=list)
    deaf: set[str] = field(default_factory=set)  # guests that ignore the power button
    silent: set[str] = field(default_factory=set)  # QEMUs that do not answer QMP
    migrations: dict[str, MigrationStatus] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)  # VM → the descriptor that its guest flows through
    permits: list[tuple[str, int, int, str]] = field(default_factory=list)
    locked_disks: set[str] = field(default_factory=set)  # VMs whose disk another QEMU has open for writing
    incarnation: str = "fake"
    guard_answers: bool = True
    next_pid: int = 1000

    def power_off(self, vm_id: str) -> None:
        """The guest powers itself off."""
        self.guests[vm_id] = Guest.POWERED_OFF

    def press_power_button(self, vm_id: str) -> None:
        if vm_id not in self.deaf | self.silent and self.guests.get(vm_id) is Guest.RUNNING:
            self.power_off(vm_id)

    def quit(self, vm_id: str) -> None:
        """QEMU is asked to end."""
        if vm_id not in self.silent and self.processes[vm_id].running:
            self.end(vm_id, exit_code=0)

    def panic(self, vm_id: str) -> None:
        self.guests[vm_id] = Guest.CRASHED

    def fill_disk(self, vm_id: str) -> None:
        self.guests[vm_id] = Guest.IO_ERROR

    def crash(self, vm_id: str) -> None:
        """QEMU itself dies."""
        self.end(vm_id, signal=_SIGSEGV)

    def lose_all(self) -> None:
        """The guard dies, and with it everything under it."""
        for vm_id, process in self.processes.items():
            if process.running:
                self.end(vm_id, lost=True)

    def freeze(self, vm_id: str) -> None:
        """The guard stops the process."""
        self.processes[vm_id] = replace(self.processes[vm_id], frozen=True)

    def thaw(self, vm_id: str) -> None:
        self.processes[vm_id] = replace(self.processes[vm_id], frozen=False)

    def complete_transfer(self, vm_id: str, target: FakeMachine) -> None:
        """All memory was sent, and the source has heard so."""
        self.guests[vm_id] = Guest.SENT
        self.migrations[vm_id] = MigrationStatus(Transfer.COMPLETED, downtime_ms=1)
        target.receive_all(vm_id)

    def receive_all(self, vm_id: str) -> None:
        """All memory has come, whatever the source knows."""
        self.guests[vm_id] = Guest.PAUSED
        self.migrations[vm_id] = MigrationStatus(Transfer.COMPLETED)

    def break_stream(self, vm_id: str) -> None:
        """What QEMU does when the stream ends before its time: a source goes on, a target exits."""
        if self.guests.get(vm_id) is Guest.INCOMING:
            self.end(vm_id, exit_code=1)
        elif self.migrations.get(vm_id, MigrationStatus()).transfer is Transfer.ACTIVE:
            self.guests[vm_id] = Guest.RUNNING
            self.migrations[vm_id] = MigrationStatus(Transfer.FAILED, "the stream broke")

    def end(self, vm_id: str, *, signal: int = 0, exit_code: int = -1, lost: bool = False) -> None:
        process = self.processes[vm_id]
        self.processes[vm_id] = replace(
            process, running=False, signal=signal, exit_code=exit_code, lost=lost, ended_at="ended"
        )
        self.guests.pop(vm_id, None)
        self.migrations.pop(vm_id, None)


class FakeHypervisor:
    """Fulfils ``Hypervisor``."""

    def __init__(self, machine: FakeMachine) -> None:
        self._host = machine

    def vm_ids(self) -> tuple[str, ...]:
        self._check_guard()
        return tuple(sorted({*self._host.machines, *self._host.processes}))

    def observe(self, vm_id: str) -> ObservedVm:
        host = self._host
        record = host.records.get(vm_id, VmRecord(vm_id))
        has_files = vm_id in host.machines
        if not host.guard_answers:
            return ObservedVm(vm_id, record, has_files, unknown="failed to ask the guard: it is away")
        process = host.processes.get(vm_id)
        if process is None or not process.running:
            return ObservedVm(vm_id, record, has_files, process)
        if vm_id in host.silent or process.frozen:
            return ObservedVm(vm_id, record, has_files, process, Guest.SILENT)
        moving = host.migrations.get(vm_id, MigrationStatus())
        return ObservedVm(vm_id, record, has_files, process, host.guests[vm_id], _VERSION, migration=moving)

    def prepare(self, vm_id: str, stored: Machine | None = None) -> Machine:
        host = self._host
        machine = settled_machine(host.machines.get(vm_id), stored)
        if machine is None:
            uid = lowest_free_uid(host.uid_base, (machine.uid for machine in host.machines.values()))
            machine = new_machine(vm_id, uid=uid, machine_type=_MACHINE_TYPE)
        host.machines[vm_id] = machine
        return machine

    def read_machine(self, vm_id: str) -> Machine | None:
        return self._host.machines.get(vm_id)

    def start(self, wanted: WantedVm, action: Start | Listen, resources: Resources, now: Now) -> None:
        host, vm_id = self._host, wanted.vm_id
        self._check_guard()
        if vm_id in host.processes:
            raise Conflict(f"failed to start VM {vm_id}: it runs, or its end was not collected", code="runs")
        missing = {nic.id for nic in wanted.nics} - {tap.nic_id for tap in resources.taps}
        if missing:
            raise InvalidInput(f"failed to start VM {vm_id}: no tap for {', '.join(sorted(missing))}")
        host.machines[vm_id] = with_nics(self.prepare(vm_id, wanted.machine), (nic.id for nic in wanted.nics))
        record = host.records.get(vm_id, VmRecord(vm_id))
        if isinstance(action, Listen):
            host.records[vm_id] = changes.record_listen(record, wanted, action, now, accelerator=self.accelerator())
        else:
            host.records[vm_id] = changes.record_start(record, wanted, action, now, accelerator=self.accelerator())
        host.next_pid += 1
        host.processes[vm_id] = VmProcess(
            vm_id=vm_id,
            generation=wanted.generation,
            boots=action.boots,
            incarnation=resources.incarnation or host.incarnation,
            failover=wanted.failover,
            pid=host.next_pid,
            running=True,
            started_at=host.records[vm_id].started_at,
        )
        host.guests[vm_id] = Guest.INCOMING if isinstance(action, Listen) else Guest.RUNNING
        host.resources[vm_id] = resources
        host.migrations.pop(vm_id, None)
        if isinstance(action, Start) and vm_id in host.locked_disks:
            host.end(vm_id, exit_code=1)
            said = 'Failed to get "write" lock'
            host.processes[vm_id] = replace(host.processes[vm_id], stderr_tail=said)
        host.starts.append((vm_id, wanted.generation, action.boots))

    def receive(self, vm_id: str, descriptor: int) -> None:
        if self._host.guests.get(vm_id) is not Guest.INCOMING:
            raise Unavailable(f"failed to receive VM {vm_id}: no QEMU waits for it")
        if vm_id in self._host.streams:
            raise GuestError(f"failed to receive VM {vm_id}: it is on its way already")
        self._host.streams[vm_id] = descriptor

    def send(self, vm_id: str, action: Send, descriptor: int, *, bandwidth_mib_s: int, downtime_ms: int) -> None:
        host = self._host
        host.records[vm_id] = replace(host.records[vm_id], migration_id=action.migration_id)
        if host.guests.get(vm_id) is not Guest.RUNNING:
            raise GuestError(f"failed to send VM {vm_id}: it does not run")
        host.streams[vm_id] = descriptor
        host.migrations[vm_id] = MigrationStatus(Transfer.ACTIVE, total_mib=256)

    def permit(self, vm_id: str, *, generation: int, boots: int, incarnation: str) -> None:
        self._check_guard()
        if incarnation != self._host.incarnation:
            raise Conflict(f"failed to let VM {vm_id} go on: another guard holds its lock", code="guard_replaced")
        self._host.permits.append((vm_id, generation, boots, incarnation))

    def apply(self, vm_id: str, action: Action, now: Now) -> None:
        host = self._host
        if vm_id in host.machines:
            record = host.records.get(vm_id, VmRecord(vm_id))
            host.records[vm_id] = changes.record_action(record, action, now)
        match action:
            case Kill():
                self._kill(vm_id, action)
            case Collect():
                self._collect(vm_id)
            case Remove():
                for table in (host.records, host.machines, host.resources):
                    table.pop(vm_id, None)
            case Start() | Listen() | Send():
                raise InvalidInput(f"failed to start or send VM {vm_id}: that needs more than its name")
            case _:
                self._tell(vm_id, action)

    def version(self) -> str:
        return _VERSION

    def accelerator(self) -> str:
        return "tcg"

    def events_socket(self, vm_id: str) -> Path:
        """Nobody listens there: a watcher of the fake is never woken."""
        return self._host.directory / vm_id / "events.sock"

    def serial_socket(self, vm_id: str) -> Path:
        return self._host.directory / vm_id / "serial.sock"

    def serial_log(self, vm_id: str) -> Path:
        return self._host.directory / vm_id / "serial.log"

    def trim_logs(self, *, limit_kib: int) -> None:
        """There are none."""

    def _tell(self, vm_id: str, action: Action) -> None:
        host = self._host
        match action:
            case PowerDown():
                host.press_power_button(vm_id)
            case Quit():
                host.quit(vm_id)
            case Resume() | Continue():
                if vm_id in host.locked_disks:
                    raise GuestError(f'failed to continue VM {vm_id}: Failed to get "write" lock')
                host.guests[vm_id] = Guest.RUNNING
            case CancelSend():
                host.break_stream(vm_id)

    def _kill(self, vm_id: str, action: Kill) -> None:
        self._check_guard()
        process = self._host.processes.get(vm_id)
        if process is None or (process.generation, process.boots) != (action.generation, action.boots):
            raise NotFound(f"failed to kill VM {vm_id}: no such generation and boot")
        if process.running:
            self._host.end(vm_id, signal=_SIGKILL)

    def _collect(self, vm_id: str) -> None:
        self._check_guard()
        process = self._host.processes.get(vm_id)
        if process is not None and not process.running:
            del self._host.processes[vm_id]

    def _check_guard(self) -> None:
        if not self._host.guard_answers:
            raise Unavailable("failed to ask the guard: it is away")
