"""What a host must remember of a VM across restarts of its agent: the VM's record.json.

Deadlines are of CLOCK_BOOTTIME and count only in the boot of the machine they were made in; the texts beside them
are for people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

RESTART_WINDOW_S = 600.0
RESTARTS_IN_WINDOW = 3


class End(StrEnum):
    """How the last run ended. LOST: the host or its guard ended under it, which is nobody's wish and not its doing.

    LOCKED: it never began, because another QEMU has its disk open for writing.
    """

    NONE = "none"
    STOPPED = "stopped"
    POWERED_OFF = "powered_off"
    CRASHED = "crashed"
    LOST = "lost"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class VmRecord:
    """``boots``, ``generation``, ``spec_generation`` and the sizes are those of the last start; 0 if there was none.

    ``restarts`` counts restarts by policy since then, ``restarted_at_s`` are the latest of them. ``stop_at_s`` is 0
    unless the guest was asked to power off: then it is killed at that time. ``asked_at_s`` is when it was asked last.
    ``migration_id`` is the last live migration in which this host had a part: as its target while ``incoming``, which
    says that the process has not run yet and may not without its run lock, else as its source.
    """

    vm_id: str
    host_boot_id: str = ""
    generation: int = 0
    spec_generation: int = 0
    boots: int = 0
    restarts: int = 0
    restarted_at_s: tuple[float, ...] = ()
    started_at: str = ""
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    accelerator: str = ""
    stop_at_s: float = 0.0
    stop_until: str = ""
    asked_at_s: float = 0.0
    resumed_at_s: float = 0.0
    end: End = End.NONE
    end_detail: str = ""
    ended_at: str = ""
    ended_at_s: float = 0.0
    migration_id: str = ""
    incoming: bool = False


def in_this_boot(record: VmRecord, host_boot_id: str) -> VmRecord:
    """The record without times that mean nothing any more, because the machine was started since."""
    if record.host_boot_id == host_boot_id:
        return record
    return replace(
        record,
        host_boot_id=host_boot_id,
        restarted_at_s=(),
        stop_at_s=0.0,
        stop_until="",
        asked_at_s=0.0,
        resumed_at_s=0.0,
        ended_at_s=0.0,
    )
