"""Wall clocks that are wrong, by libfaketime: monotonic clocks, and with them all deadlines, are never touched.

A host whose clock was never stepped runs without the library, so the first step restarts its processes under it (a
guard that ends takes its VMs with it); later ones, and the way back, only change a file that the library reads.
"""

from __future__ import annotations

import re
from pathlib import Path

from ucloud.errors import InvalidInput, MissingPrerequisite
from ucloud.lab import power
from ucloud.lab.layout import LabLayout
from ucloud.lab.nodes import Node, NodeKind, Shape
from ucloud.local.processes import SUPERVISOR, stop_process
from ucloud.system import files
from ucloud.system.clock import SystemClock
from ucloud.system.process_unix import read_start_ticks

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where libfaketime makes its files
_STARTED = re.compile(r"started [a-z-]+ as (\d+)")


def require_steppable(node: Node) -> None:
    """Raises InvalidInput or MissingPrerequisite."""
    if node.kind is NodeKind.ETCD:
        raise InvalidInput(
            f"failed to step the clock of {node.name}: etcd does not ask the C library for the time",
            hint="step those of hosts and API nodes",
        )
    if not power.PRELOAD.exists():
        raise MissingPrerequisite(
            "failed to step a clock: libfaketime is not installed", hint="apt-get install faketime"
        )


def step(layout: LabLayout, shape: Shape, node: Node, offset_s: float) -> None:
    """``require_steppable`` let the node pass."""
    file = layout.clock_file(node.name)
    is_new = not file.exists()
    files.write_atomic(file, f"{offset_s:+.3f}\n", mode=0o644)
    if is_new:
        _restart(layout, shape, node)


def set_right(layout: LabLayout, name: str) -> None:
    file = layout.clock_file(name)
    if file.exists():
        files.write_atomic(file, "+0.000\n", mode=0o644)


def _restart(layout: LabLayout, shape: Shape, node: Node) -> None:
    run = layout.node(node.name).run
    for name in (SUPERVISOR, *reversed(node.programs)):
        stop_process(run, name, SystemClock())
    power.start_node(layout, shape, node)


def remove_leftovers(layout: LabLayout, shape: Shape) -> None:
    """The shared memory that libfaketime leaves behind when its process is killed; the supervisors' logs name those."""
    for node in shape.nodes:
        if not layout.clock_file(node.name).exists():
            continue
        for log in layout.node(node.name).logs.glob(f"{SUPERVISOR}.log*"):
            for pid in _STARTED.findall(log.read_text(errors="replace")):
                if not read_start_ticks(int(pid)):
                    for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                        (_SHARED_MEMORY / name).unlink(missing_ok=True)
