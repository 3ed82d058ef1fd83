"""Storage that keeps the locks of the dead, hangs, or writes late: what a lab's single kernel would hide (trap 17).

In a pool that is a directory, a process of the lab's own holds QEMU's image locks of a host's disks beside QEMU (they
are shared with who has them and shut out who wants them). What a fenced pool does, its storage service is told.
"""

from __future__ import annotations

import fcntl
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

from ucloud.errors import InvalidInput, NotFound
from ucloud.lab import census
from ucloud.lab.layout import LabLayout
from ucloud.lab.ledger import Fault
from ucloud.lab.nodes import Node, PoolKind, Shape
from ucloud.lab.settings import STORAGE_NODE
from ucloud.local.processes import stop_process
from ucloud.storage.service.client import ServiceClient
from ucloud.storage.service.process import CONTROL_SOCKET
from ucloud.system.append_log import open_output
from ucloud.system.clock import SystemClock
from ucloud.system.run import spawn

# block/file-posix.c: a byte per permission that is held, and one per permission that is not shared.
_PERMISSIONS_AT, _UNSHARED_AT = 100, 200
_WRITE = 1  # BLK_PERM_WRITE is bit 1
_F_OFD_SETLK = 37
_FLOCK = struct.Struct("hhqqi4x")


def disks_of(shape: Shape, node: Node, pool: Path) -> list[Path]:
    """The files of the pool that QEMUs of this host hold open."""
    found: set[Path] = set()
    for one in census.residents(census.namespaces_of((node,))):
        if not one.name.startswith("qemu"):
            continue
        for link in Path(f"/proc/{one.pid}/fd").iterdir():
            target = link.readlink()
            if target.is_relative_to(pool) and "volumes" in target.parts:
                found.add(target)
    return sorted(found)


def lock_linger(layout: LabLayout, shape: Shape, node: Node, fault_id: str, *, for_s: float) -> None:
    """Before the host is switched off: what its QEMUs have locked stays so for that long."""
    pool = layout.pool if shape.pool is PoolKind.DIRECTORY else layout.node(node.name).directory / "pool"
    disks = disks_of(shape, node, pool)
    if not disks:
        raise NotFound(f"failed to keep locks of {node.name}: no VM runs there")
    words = (sys.executable, "-m", "ucloud", "lab", "hold-locks", fault_id, str(for_s), "--directory", layout.directory)
    with open_output(layout.log, "timers") as output:
        spawn((*words, *disks), log=output)


def take_image_locks(path: Path) -> int:
    """A descriptor that holds the locks of a QEMU that writes ``path``; they end when it is closed."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    for start in (_PERMISSIONS_AT + _WRITE, _UNSHARED_AT + _WRITE):
        fcntl.fcntl(descriptor, _F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, 1, 0))
    return descriptor


def holder_name(fault_id: str) -> str:
    return f"timer-locks-{fault_id}"


def end_linger(layout: LabLayout, fault_id: str) -> None:
    stop_process(layout.run, holder_name(fault_id), SystemClock())


def tell_service(layout: LabLayout, shape: Shape, active: Sequence[Fault]) -> None:
    """Let the storage service of a fenced pool do what the active faults say, for all hosts, and nothing else."""
    if shape.pool is not PoolKind.FENCED:
        raise InvalidInput(
            f"failed to spoil the storage: this lab's pool is a {shape.pool.value} one, which has no service",
            hint="make the lab with --pool fenced",
        )
    now_s = SystemClock().monotonic_s()
    longest = dict.fromkeys(("lock_linger", "late_write", "storage_hang"), 0.0)
    for fault in active:
        if fault.kind in longest:
            by_s = fault.until_s - now_s if fault.until_s else fault.facts["by_s"]
            longest[fault.kind] = max(longest[fault.kind], by_s)
    service = ServiceClient.at_socket(layout.node(STORAGE_NODE).run / CONTROL_SOCKET)
    service.set_faults(
        linger_s=longest["lock_linger"], late_write_s=longest["late_write"], hang_s=longest["storage_hang"]
    )
