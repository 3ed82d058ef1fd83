"""The processes of a cloud of one machine, and how one of them is found: each holds a lock on a file with its pid.

So a process is known to run by what the kernel holds for it, and a new supervisor finds those that an earlier one
started. The pid in the file counts only with the start time beside it: it may be somebody else's by now.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ucloud.errors import Conflict, DeadlineExceeded, InvalidInput
from ucloud.system.clock import Clock
from ucloud.system.process_unix import read_start_ticks

TAKE_TIMEOUT_S = 3.0
STOP_TIMEOUT_S = 15.0
_TRY_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Program:
    """A process: its word on the command line, and what it is for."""

    name: str
    about: str


SUPERVISOR = "supervise"
GUARD = Program("guard", "life sign, parent of the VMs")

# In the order of their start; they stop in the opposite order. Each copes with the others not being there.
PROGRAMS = (
    Program("etcd", "the state"),
    GUARD,
    Program("metadata", "answers guests"),
    Program("agent", "makes this host look as wanted"),
    Program("scheduler", "places VMs"),
    Program("api", "REST"),
    Program("stream", "consoles"),
)

# What a cloud of one machine does not need.
OTHER_PROGRAMS = (Program("storage-service", "disks of a fenced pool"),)


def parse_programs(names: str) -> tuple[Program, ...]:
    """Those of ``names``, a list with commas; "" are those of a cloud of one machine. Raises InvalidInput."""
    chosen = names.split(",") if names else [program.name for program in PROGRAMS]
    known = {program.name: program for program in (*PROGRAMS, *OTHER_PROGRAMS)}
    for name in chosen:
        if name not in known:
            raise InvalidInput(f"failed to supervise {name!r}: no such process", hint=f"there are: {', '.join(known)}")
    return tuple(program for program in known.values() if program.name in chosen)


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
        os.pwrite(descriptor, f"{os.getpid()} {read_start_ticks(os.getpid())}\n".encode(), 0)
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


def is_running(run_directory: Path, name: str) -> bool:
    """Whether a process of this name runs, also if it has only just begun."""
    return _look(run_directory, name) is not None


def running_pid(run_directory: Path, name: str) -> int:
    """The pid of the process of this name; 0 if none runs, or if it has not written its pid yet."""
    return _look(run_directory, name) or 0


def _look(run_directory: Path, name: str) -> int | None:
    """The pid of who holds the lock, 0 if that is not known (yet), None if nobody does."""
    try:
        descriptor = os.open(lock_file(run_directory, name), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse_pid(os.pread(descriptor, 64, 0))
    else:
        return None
    finally:
        os.close(descriptor)


def _parse_pid(text: bytes) -> int:
    words = text.split()
    if len(words) != 2 or not all(word.isdigit() for word in words):
        return 0
    pid, start_ticks = map(int, words)
    return pid if start_ticks and read_start_ticks(pid) == start_ticks else 0


def stop_process(run_directory: Path, name: str, clock: Clock, *, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """SIGTERM, and SIGKILL after ``timeout_s``; whether there was something to stop. Returns when it has ended."""
    if not is_running(run_directory, name):
        return False
    for number in (signal.SIGTERM, signal.SIGKILL):
        pid = _wait_pid(run_directory, name, clock, timeout_s)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline_s = clock.monotonic_s() + timeout_s
        while clock.monotonic_s() < deadline_s:
            if not is_running(run_directory, name):
                return True
            clock.sleep(_TRY_AGAIN_S)
    raise DeadlineExceeded(f"failed to stop {name}: process {pid} does not end", hint="is it stuck in the kernel?")


def _wait_pid(run_directory: Path, name: str, clock: Clock, timeout_s: float) -> int:
    """The pid of one that may have only just begun, or whose children end after it; 0 once nobody holds the lock."""
    deadline_s = clock.monotonic_s() + timeout_s
    while (pid := _look(run_directory, name)) == 0:
        if clock.monotonic_s() > deadline_s:
            raise DeadlineExceeded(
                f"failed to stop {name}: it runs, but its pid is not in {lock_file(run_directory, name)}",
                hint="find it with 'fuser' on that file",
            )
        clock.sleep(_TRY_AGAIN_S)
    return pid or 0
