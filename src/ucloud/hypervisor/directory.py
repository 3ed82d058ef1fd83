"""The files of the VMs of this host.

``<state>/vms/<vm>/``: machine.json, record.json, serial.log; ``<run>/vms/<vm>/``: qmp.sock, events.sock, serial.sock.
All are root's alone: QEMU gets them as open descriptors, so a guest that took its QEMU over cannot put a link in
their place.
"""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any, TypeVar

from ucloud.errors import GuestError
from ucloud.hypervisor.machine import lowest_free_uid, new_machine, settled_machine
from ucloud.hypervisor.record import VmRecord, in_this_boot
from ucloud.model.machine import Machine
from ucloud.store.codec import from_plain, to_plain
from ucloud.system import files
from ucloud.system.append_log import keep_tail, open_append

T = TypeVar("T")


class VmDirectories:
    """Paths, machines and records of all VMs here. May be used from several threads, but for one VM from one."""

    def __init__(self, state_directory: Path, run_directory: Path, *, host_boot_id: str) -> None:
        self._state = state_directory / "vms"
        self._run = run_directory / "vms"
        self._host_boot_id = host_boot_id
        self._uids = threading.Lock()

    def vm_ids(self) -> tuple[str, ...]:
        """All VMs that have a directory here."""
        if not self._state.is_dir():
            return ()
        return tuple(sorted(path.name for path in self._state.iterdir() if path.is_dir()))

    def exists(self, vm_id: str) -> bool:
        return self._state_of(vm_id).is_dir()

    def ensure(self, vm_id: str) -> None:
        files.ensure_directory(self._state_of(vm_id))
        files.ensure_directory(self._run_of(vm_id))

    def remove(self, vm_id: str) -> None:
        """Remove all of the VM's files. Its state directory goes last, so an interrupted removal is seen."""
        for path in (self._run_of(vm_id), self._state_of(vm_id)):
            if path.is_dir():
                shutil.rmtree(path)

    def read_machine(self, vm_id: str) -> Machine | None:
        return _read(Machine, self._state_of(vm_id) / "machine.json")

    def write_machine(self, machine: Machine) -> None:
        files.write_json(self._state_of(machine.vm_id) / "machine.json", to_plain(machine))

    def ensure_machine(self, vm_id: str, *, uid_base: int, machine_type: str, stored: Machine | None = None) -> Machine:
        """The VM's machine: ``stored`` if it brought one along, else made at its first start anywhere, with the
        lowest free uid. It is in its file at the return.
        """
        with self._uids:
            here = self.read_machine(vm_id)
            machine = settled_machine(here, stored)
            if machine is None:
                others = (self.read_machine(other) for other in self.vm_ids())
                uid = lowest_free_uid(uid_base, (other.uid for other in others if other))
                machine = new_machine(vm_id, uid=uid, machine_type=machine_type)
            if machine != here:
                self.write_machine(machine)
        return machine

    def read_record(self, vm_id: str) -> VmRecord:
        """The VM's record; one that never started if there is none."""
        record = _read(VmRecord, self._state_of(vm_id) / "record.json") or VmRecord(vm_id)
        return in_this_boot(record, self._host_boot_id)

    def write_record(self, record: VmRecord) -> None:
        files.write_json(self._state_of(record.vm_id) / "record.json", to_plain(record))

    def qmp_socket(self, vm_id: str) -> Path:
        return self._run_of(vm_id) / "qmp.sock"

    def events_socket(self, vm_id: str) -> Path:
        return self._run_of(vm_id) / "events.sock"

    def serial_socket(self, vm_id: str) -> Path:
        return self._run_of(vm_id) / "serial.sock"

    def serial_log(self, vm_id: str) -> Path:
        return self._state_of(vm_id) / "serial.log"

    def open_serial_log(self, vm_id: str) -> int:
        """A descriptor for appending, which QEMU gets."""
        return open_append(self.serial_log(vm_id))

    def _state_of(self, vm_id: str) -> Path:
        return self._state / _checked(vm_id)

    def _run_of(self, vm_id: str) -> Path:
        return self._run / _checked(vm_id)


def trim_serial_log(path: Path, *, limit_kib: int) -> bool:
    """Cut a log over its limit to its last half; QEMU appends to it. Returns whether it cut."""
    return keep_tail(path, limit_bytes=limit_kib * 1024)


def _checked(vm_id: str) -> str:
    if not vm_id or vm_id in (".", "..") or "/" in vm_id or "\0" in vm_id:
        raise GuestError(f"failed to find the files of VM {vm_id!r}: this is no id")
    return vm_id


def _read(cls: type[T], path: Path) -> T | None:
    try:
        plain: Any = files.read_json(path)
        return None if plain is None else from_plain(cls, plain)
    except (TypeError, KeyError, ValueError) as error:
        raise GuestError(f"failed to read {path}: {error}", hint="is it damaged? Restore it from a copy") from error
