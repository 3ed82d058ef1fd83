"""The PID namespace of one guard incarnation: when the guard ends, however it ends, the kernel kills all in it.

Its first process does nothing but hold it open: a ``cat`` (for its size) that reads a pipe. It ends with the guard
by two independent ways: its parent's death signal, and the end of that pipe, whose other side only the guard holds.
With it the kernel kills the whole namespace.
Processes inside are children of the guard, which stays outside: it sees the host's pids and reaps them itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

from ucloud.system import process_unix
from ucloud.system.readable import wait_readable

_END_TIMEOUT_S = 2.0


class PidNamespace:
    """Made by, and only usable from, the guard's main thread: it is the parent whose end the kernel watches."""

    def __init__(self) -> None:
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        held, self._hold = os.pipe()
        process_unix.unshare_pids()
        try:
            self.first_pid = os.fork()
            if self.first_pid == 0:
                _be_first(held, self._hold)
        finally:
            process_unix.enter_pids(self._own)
        os.close(held)
        self._inner = os.open(f"/proc/{self.first_pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self.first_pidfd = os.pidfd_open(self.first_pid)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Children forked inside this block are born in the namespace. No thread may be started in it."""
        process_unix.enter_pids(self._inner)
        try:
            yield
        finally:
            process_unix.enter_pids(self._own)

    def is_ending(self) -> bool:
        """Whether its first process ends or has ended, so that the kernel kills all others inside."""
        return process_unix.is_ending(self.first_pid)

    def kill(self) -> None:
        """Tell the kernel to end everything inside. It is done once whoever forked them has reaped them."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.first_pidfd, signal.SIGKILL)

    def close(self) -> None:
        """End the namespace and wait for that, but not for ever: one inside that hangs in the kernel holds it open."""
        self.kill()
        os.close(self._hold)
        if wait_readable([self.first_pidfd], _END_TIMEOUT_S):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.first_pid, 0)
        for descriptor in (self._own, self._inner, self.first_pidfd):
            os.close(descriptor)


def _be_first(held: int, hold: int) -> None:
    """The life of the first process. Never returns. Ignored signals and the death signal outlive the exec."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)  # an ignored SIGCHLD lets the kernel reap orphans
        process_unix.die_with_parent()
        nothing = os.open("/dev/null", os.O_RDWR)
        for descriptor, source in enumerate((held, nothing, nothing)):
            os.dup2(source, descriptor)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.execv("/bin/cat", ("cat", "-"))  # noqa: S606
    finally:
        os._exit(0)
