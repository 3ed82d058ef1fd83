"""One question or command to the QEMU of a VM, over a short QMP connection of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ucloud.errors import GuestError, Unavailable
from ucloud.hypervisor.actions import Guest
from ucloud.hypervisor.migration_status import MigrationStatus, parse_migration
from ucloud.hypervisor.qmp import Qmp

_QMP_TIMEOUT_S = 3.0

_GUESTS = {
    "running": Guest.RUNNING,
    "shutdown": Guest.POWERED_OFF,
    "guest-panicked": Guest.CRASHED,
    "internal-error": Guest.CRASHED,
    "io-error": Guest.IO_ERROR,
    "inmigrate": Guest.INCOMING,
    "postmigrate": Guest.SENT,
    "finish-migrate": Guest.FINISHING,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """QEMU's answers: the guest's state, QEMU's version, and its last migration; SILENT and nothing without one."""

    guest: Guest = Guest.SILENT
    version: str = ""
    migration: MigrationStatus = field(default_factory=MigrationStatus)


def ask_guest(qmp_socket: Path, *, migration: bool = False) -> Asked:
    """``migration``: ask for that as well. First, so that what is said to stand still afterwards did so before."""
    try:
        with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
            moving = parse_migration(qmp.execute("query-migrate")) if migration else MigrationStatus()
            guest = _parse_status(qmp.execute("query-status"))
            if (
                migration and guest is Guest.SENT and not moving.downtime_ms
            ):  # QEMU counts it after it has said "completed"
                moving = parse_migration(qmp.execute("query-migrate"))
            return Asked(guest, qmp.version, moving)
    except (Unavailable, GuestError):
        return Asked()


def _parse_status(answer: Any) -> Guest:
    word = answer.get("status") if isinstance(answer, dict) else None
    return _GUESTS.get(str(word), Guest.PAUSED) if word else Guest.SILENT


def tell_qemu(qmp_socket: Path, command: str) -> Any:
    """The command's result. Raises Unavailable without an answer, GuestError if QEMU refuses."""
    with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
        return qmp.execute(command)
