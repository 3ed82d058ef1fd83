"""Which processes belong to a node: those whose network namespace is the node's, or that of a gateway on it.

This needs no book-keeping that a crash could spoil, and never names a process of another cloud. Whoever is named here
may be gone a moment later, so signals go through a pidfd that was checked after it was opened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from ucloud.errors import DeadlineExceeded
from ucloud.lab import wires
from ucloud.lab.nodes import Node
from ucloud.system.namespace import namespace_inode
from ucloud.system.process_unix import read_start_ticks

END_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class Resident:
    """A process in a namespace, named for ever by its start. ``state`` is that of proc(5): T for a stopped one."""

    pid: int
    start_ticks: int
    name: str
    state: str
    command: str


def namespaces_of(nodes: Iterable[Node]) -> frozenset[int]:
    inodes = {namespace_inode(name) for node in nodes for name in wires.own_namespaces(node)}
    return frozenset(inodes - {0})


def residents(inodes: Collection[int]) -> list[Resident]:
    """All living processes in these namespaces, zombies left out. Raises nothing for those that end meanwhile."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and namespace_of(int(entry.name)) in inodes:
            one = _read(int(entry.name))
            if one is not None:
                found.append(one)
    return found


def namespace_of(pid: int) -> int:
    """0 for one that has ended."""
    try:
        return int(str(Path(f"/proc/{pid}/ns/net").readlink()).partition("[")[2].rstrip("]"))
    except (OSError, ValueError):
        return 0


def _read(pid: int) -> Resident | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, fields = text[text.index("(") + 1 : text.rindex(")")], text.rsplit(")", 1)[1].split()
    if fields[0] in "ZX":
        return None
    return Resident(pid, int(fields[19]), name, fields[0], command.replace(b"\0", b" ").decode(errors="replace"))


def send(one: Resident, number: signal.Signals) -> bool:
    """Whether it was still there."""
    try:
        pidfd = os.pidfd_open(one.pid)
    except ProcessLookupError:
        return False
    try:
        if read_start_ticks(one.pid) != one.start_ticks:
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        return True
    finally:
        os.close(pidfd)


def kill_all(inodes: Collection[int], *, timeout_s: float = END_TIMEOUT_S) -> int:
    """SIGKILL, the supervisors first so that nothing is started anew, until none is left. How many there were."""
    if os.getpid() in {one.pid for one in residents(inodes)}:
        raise RuntimeError("this process is in a namespace of the lab itself")
    killed: set[int] = set()

    def none_left() -> bool:
        found = residents(inodes)
        for one in sorted(found, key=lambda one: "ucloud supervise" not in one.command):
            send(one, signal.SIGKILL)
            killed.add(one.pid)
        return not found

    _wait(none_left, timeout_s, "failed to end the processes of a lab: some do not die")
    return len(killed)


def stop_all(inodes: Collection[int], *, timeout_s: float = END_TIMEOUT_S) -> list[Resident]:
    """SIGSTOP until none runs. Returns those that it stopped, so that only they are continued later."""
    stopped: dict[int, Resident] = {}

    def none_runs() -> bool:
        running = [one for one in residents(inodes) if one.state not in "Tt"]
        for one in running:
            if send(one, signal.SIGSTOP):
                stopped[one.pid] = one
        return not running

    _wait(none_runs, timeout_s, "failed to freeze the processes of a host: some do not stop")
    return list(stopped.values())


def _wait(done: Callable[[], bool], timeout_s: float, failure: str) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline_s:
            raise DeadlineExceeded(failure, hint="is something stuck in the kernel? See 'ps -eo pid,stat,wchan'")
        time.sleep(_LOOK_EVERY_S)
