"""One question or command to the QEMU of a VM, over a short QMP connection of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ucloud.errors import GuestError, Unavailable
from ucloud.hypervisor.plan import Guest
from ucloud.hypervisor.qmp import Qmp

_QMP_TIMEOUT_S = 3.0

_GUESTS = {
    "running": Guest.RUNNING,
    "shutdown": Guest.POWERED_OFF,
    "guest-panicked": Guest.CRASHED,
    "internal-error": Guest.CRASHED,
    "io-error": Guest.IO_ERROR,
}


def ask_guest(qmp_socket: Path) -> tuple[Guest, str]:
    """The guest's state and QEMU's version; SILENT and "" without an answer."""
    try:
        with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
            status, version = qmp.execute("query-status"), qmp.version
    except (Unavailable, GuestError):
        return Guest.SILENT, ""
    word = status.get("status") if isinstance(status, dict) else None
    return (_GUESTS.get(str(word), Guest.PAUSED) if word else Guest.SILENT), version


def tell_qemu(qmp_socket: Path, command: str) -> Any:
    """The command's result. Raises Unavailable without an answer, GuestError if QEMU refuses."""
    with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
        return qmp.execute(command)
