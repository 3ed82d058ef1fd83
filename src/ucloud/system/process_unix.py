"""What the kernel offers for processes and Python does not: PID namespaces, death signals, locked memory.

Linux only, through ctypes on the C library. Namespace calls concern the calling thread alone; death signals are
tied to the thread that forked, so whoever forks must be a thread that lives as long as the process.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
from pathlib import Path

_CLONE_NEWPID = 0x20000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_PF_EXITING = 0x4  # include/linux/sched.h
_UCRED = struct.Struct("iII")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare_pids() -> None:
    """Let the next child of this thread be the first process of a new PID namespace (unshare(2))."""
    _check(_libc.unshare(_CLONE_NEWPID), "unshare(CLONE_NEWPID)")


def enter_pids(namespace: int) -> None:
    """Let later children of this thread be born in ``namespace``, an open /proc/<pid>/ns/pid (setns(2))."""
    _check(_libc.setns(namespace, _CLONE_NEWPID), "setns(CLONE_NEWPID)")


def die_with_parent() -> None:
    """SIGKILL this process when the thread that forked it ends. A change of uid clears it: call it after that."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def forbid_new_privileges() -> None:
    """No exec of this process or its children gains rights, by set-uid bits or otherwise."""
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def lock_memory() -> None:
    """Keep in memory whatever this process has touched or will touch; not what it merely mapped (mlockall(2))."""
    _check(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT), "mlockall")


def keep_heap_small() -> None:
    """Let glibc keep one heap for all threads and give free memory back soon (mallopt(3)); no-op elsewhere."""
    if hasattr(_libc, "mallopt"):
        for option, value in ((_M_ARENA_MAX, 1), (_M_TRIM_THRESHOLD, 64 * 1024), (_M_MMAP_THRESHOLD, 32 * 1024)):
            _libc.mallopt(option, value)


def peer_of(connection: socket.socket) -> tuple[int, int, int]:
    """pid, uid and gid of who connected to a unix socket, as the kernel says."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def is_ending(pid: int) -> bool:
    """Whether ``pid`` is on its way out (PF_EXITING; it may still wait for others), a zombie, or gone."""
    fields = _read_stat(pid)
    return not fields or fields[0] in "ZX" or bool(int(fields[6]) & _PF_EXITING)


def read_boot_id() -> str:
    """Changes with every boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_start_ticks(pid: int) -> int:
    """When ``pid`` was started, in clock ticks since boot; 0 if there is no such process or it is a zombie.

    With the boot id it names a process for ever, while a pid alone is used again (proc(5), fields 3 and 22).
    """
    fields = _read_stat(pid)
    return 0 if not fields or fields[0] in "ZX" else int(fields[19])


def _read_stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on, none if there is no such process (proc(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rsplit(")", 1)[1].split()
