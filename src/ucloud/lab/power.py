"""Starting and ending a node: its processes run under a supervisor of its own, inside its namespace.

A program that is started by a thread in a namespace stays in it, so no wrapper stands between. Programs for tests and
benchmarks live long and start many nodes: they keep what they started here, so that the kernel's zombies are collected.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from ucloud.lab import census, wires
from ucloud.lab.layout import LabLayout
from ucloud.lab.nodes import Node, Shape
from ucloud.local.processes import SUPERVISOR, is_running
from ucloud.system.append_log import open_output
from ucloud.system.namespace import in_namespace
from ucloud.system.run import Process, spawn

PRELOAD = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

_children: list[Process] = []


def start_node(layout: LabLayout, shape: Shape, node: Node) -> bool:
    """Switch the node on if it is off: cable, namespace, supervisor. Whether its supervisor was started."""
    wires.ensure_node(shape, node)
    own = layout.node(node.name)
    if not node.programs or is_running(own.run, SUPERVISOR):
        return False
    words = [SUPERVISOR, "--config", str(own.config_file), "--programs", ",".join(node.programs)]
    words += [f"--under={word}" for word in clock_words(layout.clock_file(node.name))]
    with open_output(own.logs, SUPERVISOR) as output:
        start_inside(node.namespace, (sys.executable, "-m", "ucloud", *words), output=output)
    return True


def start_inside(namespace: str, argv: Sequence[str | Path], *, output: int | None = None) -> Process:
    """Leave a program running in a namespace, in a session of its own."""
    child = in_namespace(namespace, lambda: spawn(argv, log=output))
    collect_ended()
    _children.append(child)
    return child


def collect_ended() -> None:
    """Let go of those that have ended."""
    _children[:] = [one for one in _children if one.poll() is None]


def cut_power(shape: Shape, node: Node) -> int:
    """All at once: the cable first, so that nobody hears the processes die, then these, then what the kernel keeps."""
    if census.namespaces_of((node,)):
        wires.unplug(shape, node)
    killed = census.kill_all(census.namespaces_of((node,)))
    wires.remove_node(shape, node)
    collect_ended()
    return killed


def clock_words(clock_file: Path) -> tuple[str, ...]:
    """For a node whose wall clock was stepped: libfaketime reads from the file how far. Other clocks stay true.

    Go programs (etcd) do not ask the C library for the time, so theirs cannot be stepped.
    """
    if not clock_file.exists():
        return ()
    return (
        "env",
        f"LD_PRELOAD={PRELOAD}",
        f"FAKETIME_TIMESTAMP_FILE={clock_file}",
        "FAKETIME_CACHE_DURATION=1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "DONT_FAKE_MONOTONIC=1",
        "NO_FAKE_STAT=1",
    )
