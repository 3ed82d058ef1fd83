"""What the guard writes down of each VM process: ``<run>/guard/<vm>.json``, for its successor and for ``down``.

A process is known for ever by its pid, its start time and the boot of the machine; a pid alone is used again.
Must hold: a file that cannot be read is never taken for "nothing runs".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.store.codec import from_plain, to_plain
from ucloud.system import files, process_unix


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    process: VmProcess
    start_ticks: int
    boot_id: str

    def runs(self) -> bool:
        pidfd = self.open_running()
        if pidfd >= 0:
            os.close(pidfd)
        return pidfd >= 0

    def open_running(self) -> int:
        """A pidfd if it still runs, else −1. The caller closes it."""
        if not self.process.running or self.boot_id != process_unix.read_boot_id():
            return -1
        try:
            pidfd = os.pidfd_open(self.process.pid)
        except ProcessLookupError:
            return -1
        if process_unix.read_start_ticks(self.process.pid) == self.start_ticks:
            return pidfd
        os.close(pidfd)
        return -1


def record_path(directory: Path, vm_id: str) -> Path:
    return directory / f"{vm_id}.json"


def write_record(directory: Path, record: ProcessRecord) -> None:
    plain: dict[str, Any] = {
        "process": to_plain(record.process),
        "start_ticks": record.start_ticks,
        "boot_id": record.boot_id,
    }
    files.write_json(record_path(directory, record.process.vm_id), plain)


def read_records(directory: Path) -> tuple[dict[str, ProcessRecord], dict[str, str]]:
    """All records by VM, and of the VMs whose file cannot be read why not."""
    records: dict[str, ProcessRecord] = {}
    damaged: dict[str, str] = {}
    for path in sorted(directory.glob("*.json")):
        try:
            records[path.stem] = _read(path)
        except (ValueError, TypeError, KeyError, OSError) as error:
            damaged[path.stem] = str(error) or type(error).__name__
    return records, damaged


def _read(path: Path) -> ProcessRecord:
    plain = files.read_json(path)
    record = ProcessRecord(
        from_plain(VmProcess, plain["process"]), start_ticks=int(plain["start_ticks"]), boot_id=str(plain["boot_id"])
    )
    if record.process.vm_id != path.stem:
        raise ValueError(f"it describes {record.process.vm_id}")
    if record.process.pid <= 0:
        raise ValueError(f"{record.process.pid} is no pid")
    return record
