"""The real hypervisor: QEMU processes under the guard, driven by QMP.

Owns the VMs' directories. Every action writes the record first and acts then, so that an agent that dies in between
repeats the act and not the decision.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ucloud.config.sections import HostSection
from ucloud.errors import Conflict, Error, GuestError, InvalidInput, Unavailable
from ucloud.hypervisor import changes, migration
from ucloud.hypervisor.accelerator import Accelerator, choose_accelerator, observe_cpu, observe_kvm_group
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
from ucloud.hypervisor.command_line import Descriptors, Launch, NicDevice, render_command_line
from ucloud.hypervisor.directory import VmDirectories, trim_serial_log
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.guard_protocol import FIRST_FD, Named, StartMode, StartRequest
from ucloud.hypervisor.guest import ask_guest, tell_qemu
from ucloud.hypervisor.machine import with_nics
from ucloud.hypervisor.qemu_facts import QemuFacts, observe_qemu
from ucloud.hypervisor.record import VmRecord
from ucloud.hypervisor.resources import Resources, Tap
from ucloud.model.machine import Machine
from ucloud.model.wanted import WantedVm
from ucloud.system.process_unix import read_boot_id
from ucloud.system.unix_socket import listen_unix

_OWN_SOCKETS = 3  # QMP, events, serial console; the serial log comes behind them, then the taps


class QemuHypervisor:
    """Fulfils ``Hypervisor``."""

    def __init__(self, guard: GuardClient, directories: VmDirectories, facts: QemuFacts, settings: HostSection) -> None:
        self._guard = guard
        self._directories = directories
        self._facts = facts
        self._uid_base = settings.uid_base
        self._accelerator = choose_accelerator(settings.accelerator, observe_cpu())

    def vm_ids(self) -> tuple[str, ...]:
        running = {process.vm_id for process in self._guard.list()}
        return tuple(sorted(running.union(self._directories.vm_ids())))

    def observe(self, vm_id: str) -> ObservedVm:
        record = self._directories.read_record(vm_id)
        has_files = self._directories.exists(vm_id)
        try:
            processes = self._guard.list(vm_id)
        except Error as error:
            return ObservedVm(vm_id, record, has_files, unknown=error.message)
        if not processes:
            return ObservedVm(vm_id, record, has_files)
        process = processes[0]
        if not process.running:
            return ObservedVm(vm_id, record, has_files, process)
        if process.frozen:  # it could not answer
            return ObservedVm(vm_id, record, has_files, process, Guest.SILENT)
        asked = ask_guest(self._directories.qmp_socket(vm_id), migration=bool(record.migration_id))
        return ObservedVm(vm_id, record, has_files, process, asked.guest, asked.version, migration=asked.migration)

    def prepare(self, vm_id: str, stored: Machine | None = None) -> Machine:
        self._directories.ensure(vm_id)
        return self._directories.ensure_machine(
            vm_id, uid_base=self._uid_base, machine_type=self._facts.machine_type, stored=stored
        )

    def read_machine(self, vm_id: str) -> Machine | None:
        return self._directories.read_machine(vm_id)

    def start(self, wanted: WantedVm, action: Start | Listen, resources: Resources, now: Now) -> None:
        if self._guard.list(wanted.vm_id):  # its sockets are about to be replaced
            raise Conflict(f"failed to start VM {wanted.vm_id}: it runs, or its end was not collected", code="runs")
        machine = self._machine_with_nics(wanted)
        incoming = isinstance(action, Listen)
        self._directories.write_record(self._record_start(wanted, action, now))
        with self._own_descriptors(wanted.vm_id) as own:
            launch = self._launch(wanted, machine, resources, incoming=incoming)
            request = StartRequest(
                vm_id=wanted.vm_id,
                generation=wanted.generation,
                boots=action.boots,
                failover=wanted.failover,
                uid=machine.uid,
                gid=machine.uid,
                argv=render_command_line(launch),
                groups=self._groups(),
                incarnation=resources.incarnation,
                taps=tuple(tap.device for tap in resources.taps if tap.device),
                pool_fence=resources.pool_fence,
                mode=StartMode.INCOMING if incoming else StartMode.RUN,
            )
            self._guard.start(request, (*own, *(tap.descriptor for tap in resources.taps)))

    def receive(self, vm_id: str, descriptor: int) -> None:
        migration.receive(self._directories.qmp_socket(vm_id), descriptor)

    def send(self, vm_id: str, action: Send, descriptor: int, *, bandwidth_mib_s: int, downtime_ms: int) -> None:
        record = self._directories.read_record(vm_id)
        self._directories.write_record(replace(record, migration_id=action.migration_id))
        migration.send(
            self._directories.qmp_socket(vm_id), descriptor, bandwidth_mib_s=bandwidth_mib_s, downtime_ms=downtime_ms
        )

    def permit(self, vm_id: str, *, generation: int, boots: int, incarnation: str) -> None:
        self._guard.permit(Named(vm_id, generation, boots), incarnation)

    def apply(self, vm_id: str, action: Action, now: Now) -> None:
        if self._directories.exists(vm_id):
            record = self._directories.read_record(vm_id)
            self._directories.write_record(changes.record_action(record, action, now))
        match action:
            case Kill(generation=generation, boots=boots):
                self._guard.kill(Named(vm_id, generation, boots))
            case Collect():
                self._collect(vm_id)
            case Remove():
                self._directories.remove(vm_id)
            case Start() | Listen() | Send():
                raise InvalidInput(f"failed to start or send VM {vm_id}: that needs more than its name")
            case _:
                _tell(self._directories.qmp_socket(vm_id), action)

    def version(self) -> str:
        return self._facts.version

    def accelerator(self) -> str:
        return self._accelerator.value

    def events_socket(self, vm_id: str) -> Path:
        return self._directories.events_socket(vm_id)

    def serial_socket(self, vm_id: str) -> Path:
        return self._directories.serial_socket(vm_id)

    def serial_log(self, vm_id: str) -> Path:
        return self._directories.serial_log(vm_id)

    def trim_logs(self, *, limit_kib: int) -> None:
        for vm_id in self._directories.vm_ids():
            trim_serial_log(self._directories.serial_log(vm_id), limit_kib=limit_kib)

    def _machine_with_nics(self, wanted: WantedVm) -> Machine:
        machine = self.prepare(wanted.vm_id, wanted.machine)
        extended = with_nics(machine, (nic.id for nic in wanted.nics))
        if extended is not machine:
            self._directories.write_machine(extended)
        return extended

    @contextlib.contextmanager
    def _own_descriptors(self, vm_id: str) -> Iterator[tuple[int, ...]]:
        """Listening sockets and the log, for QEMU; our copies are closed at the end."""
        paths = (
            self._directories.qmp_socket(vm_id),
            self._directories.events_socket(vm_id),
            self._directories.serial_socket(vm_id),
        )
        with contextlib.ExitStack() as stack:
            listeners: list[socket.socket] = [stack.enter_context(listen_unix(path)) for path in paths]
            log = self._directories.open_serial_log(vm_id)
            stack.callback(os.close, log)
            yield (*(listener.fileno() for listener in listeners), log)

    def _record_start(self, wanted: WantedVm, action: Start | Listen, now: Now) -> VmRecord:
        record, accelerator = self._directories.read_record(wanted.vm_id), self._accelerator.value
        if isinstance(action, Listen):
            return changes.record_listen(record, wanted, action, now, accelerator=accelerator)
        return changes.record_start(record, wanted, action, now, accelerator=accelerator)

    def _launch(self, wanted: WantedVm, machine: Machine, resources: Resources, *, incoming: bool) -> Launch:
        taps = {tap.nic_id: (FIRST_FD + _OWN_SOCKETS + 1 + place, tap) for place, tap in enumerate(resources.taps)}
        missing = [nic.id for nic in wanted.nics if nic.id not in taps]
        if missing:
            raise InvalidInput(f"failed to start VM {wanted.vm_id}: no tap for {', '.join(missing)}")
        return Launch(
            program=self._facts.program,
            name=wanted.name,
            machine=machine,
            accelerator=self._accelerator,
            cpus=wanted.cpus,
            memory_mib=wanted.memory_mib,
            disk=resources.disk,
            nics=tuple(_nic_device(nic.id, nic.mac, taps[nic.id]) for nic in wanted.nics),
            descriptors=Descriptors(
                qmp=FIRST_FD, events=FIRST_FD + 1, serial=FIRST_FD + 2, serial_log=FIRST_FD + _OWN_SOCKETS
            ),
            incoming=incoming,
        )

    def _groups(self) -> tuple[int, ...]:
        group = observe_kvm_group() if self._accelerator is Accelerator.KVM else 0
        return (group,) if group else ()

    def _collect(self, vm_id: str) -> None:
        for process in self._guard.list(vm_id):
            if not process.running:
                self._guard.forget(Named(vm_id, process.generation, process.boots))


def open_hypervisor(settings: HostSection) -> QemuHypervisor:
    """The hypervisor of this host. Raises MissingPrerequisite if there is no QEMU, or no KVM where it is a must."""
    directories = VmDirectories(settings.state_directory, settings.run_directory, host_boot_id=read_boot_id())
    return QemuHypervisor(GuardClient(settings.run_directory / "guard.sock"), directories, observe_qemu(), settings)


def _tell(qmp_socket: Path, action: Action) -> None:
    """What QEMU does when it is told to; the rest of the actions are notes alone."""
    match action:
        case PowerDown():
            with contextlib.suppress(Unavailable, GuestError):  # the deadline goes on anyhow
                tell_qemu(qmp_socket, "system_powerdown")
        case Quit():
            with contextlib.suppress(Unavailable):  # QEMU may be gone before it answers
                tell_qemu(qmp_socket, "quit")
        case Resume():
            tell_qemu(qmp_socket, "cont")
        case CancelSend():
            migration.cancel(qmp_socket)
        case Continue(arrived=arrived):
            migration.go_on(qmp_socket, announce=arrived)


def _nic_device(nic_id: str, mac: str, numbered: tuple[int, Tap]) -> NicDevice:
    number, tap = numbered
    return NicDevice(nic_id, mac, tap.mtu, number)
