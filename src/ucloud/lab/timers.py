"""What ends a fault after its time: a process of its own per timed fault, so that no command has to wait for it.

It is found by its lock file in the lab's run directory. ``heal`` and ``down`` end it early.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from ucloud.lab import census, wires
from ucloud.lab.layout import LabLayout
from ucloud.lab.nodes import Shape
from ucloud.local.processes import stop_process
from ucloud.system.append_log import open_output
from ucloud.system.clock import SystemClock
from ucloud.system.namespace import namespace_inode
from ucloud.system.run import Process, spawn

_PREFIX = "timer-"
_children: list[Process] = []


def timer_name(fault_id: str) -> str:
    return f"{_PREFIX}{fault_id}"


def start_timer(layout: LabLayout, fault_id: str) -> None:
    """Undo that fault when its time is over (it is written with the fault)."""
    words = (sys.executable, "-m", "ucloud", "lab", "undo", fault_id, "--directory", layout.directory)
    with open_output(layout.log, "timers") as output:
        collect_ended()
        _children.append(spawn(words, log=output))


def end_timers(layout: LabLayout) -> int:
    """How many were under way."""
    names = [path.stem for path in layout.run.glob(f"{_PREFIX}*.process")] if layout.run.is_dir() else []
    ended = sum(stop_process(layout.run, name, SystemClock()) for name in names)
    collect_ended()
    return ended


def collect_ended() -> None:
    """Let go of those that have ended."""
    _children[:] = [one for one in _children if one.poll() is None]


def delay_words(layout: LabLayout, node: str, delay_s: float, loss: float) -> tuple[str | Path, ...]:
    """The process that makes a node's cable slow; it lives in the switch."""
    return (
        sys.executable,
        "-m",
        "ucloud",
        "lab",
        "delay",
        node,
        str(delay_s),
        str(loss),
        "--directory",
        layout.directory,
    )


def end_delay(shape: Shape, node: str) -> None:
    for one in census.residents({namespace_inode(wires.switch_namespace(shape))} - {0}):
        if f" lab delay {node} " in one.command:
            census.send(one, signal.SIGKILL)
