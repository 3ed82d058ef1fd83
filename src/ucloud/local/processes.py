"""The processes of a cloud of one machine, and how one of them is found: each holds a lock on a file with its pid.

So a process is known to run by what the kernel holds for it, not by a number that may be somebody else's by now,
and a new supervisor finds those that an earlier one started.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ucloud.errors import Conflict, DeadlineExceeded
from ucloud.system.clock import Clock

TAKE_TIMEOUT_S = 3.0
STOP_TIMEOUT_S = 15.0
_TRY_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Program:
    """A process: its word on the command line, and what it is for."""

    name: str
    about: str


SUPERVISOR = "supervise"

# In the order of their start; they stop in the opposite order. Each copes with the others not being there.
PROGRAMS = (
    Program("etcd", "the state"),
    Program("guard", "life sign, parent of the VMs"),
    Program("metadata", "answers guests"),
    Program("agent", "makes this host look as wanted"),
    Program("scheduler", "places VMs"),
    Program("api", "REST"),
    Program("stream", "consoles"),
)


def lock_file(run_directory: Path, name: str) -> Path:
    return run_directory / f"{name}.process"


@contextlib.contextmanager
def only_one(run_directory: Path, name: str, clock: Clock) -> Iterator[None]:
    """Be the one process of this name while inside. Raises Conflict if there is another.

    Waits a moment: somebody who looks whether the lock is held holds it for that instant.
    """
    path = lock_file(run_directory, name)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, name, clock)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, name: str, clock: Clock) -> None:
    deadline_s = clock.monotonic_s() + TAKE_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if clock.monotonic_s() > deadline_s:
                raise Conflict(f"failed to start {name}: it already runs here", code="already_running") from error
            clock.sleep(_TRY_AGAIN_S)
        else:
            return


def running_pid(run_directory: Path, name: str) -> int:
    """The pid of the process of this name, 0 if none runs."""
    try:
        descriptor = os.open(lock_file(run_directory, name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    else:
        return 0
    finally:
        os.close(descriptor)


def stop_process(run_directory: Path, name: str, clock: Clock, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """SIGTERM, and SIGKILL after ``timeout_s``; whether there was something to stop. Returns when it has ended."""
    pid = running_pid(run_directory, name)
    if not pid:
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline_s = clock.monotonic_s() + timeout_s
        while clock.monotonic_s() < deadline_s:
            if not running_pid(run_directory, name):
                return True
            clock.sleep(_TRY_AGAIN_S)
    raise DeadlineExceeded(f"failed to stop {name}: process {pid} does not end", hint="is it stuck in the kernel?")
