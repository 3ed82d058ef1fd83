"""Fork and exec of one VM process, with all rights dropped in between.

The child waits for a byte before it goes on: the parent first writes down who was born, so that a guard that dies
in this moment leaves no process that nobody knows. Errors of the child come back as text through a pipe that a
successful exec closes. Between fork and exec only system calls are made: the guard has a second thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Sequence

from ucloud.errors import GuestError
from ucloud.guard.namespace import PidNamespace
from ucloud.hypervisor.guard_protocol import FIRST_FD, StartRequest
from ucloud.system import process_unix
from ucloud.system.readable import wait_readable

_EXEC_TIMEOUT_S = 5.0
_HIGH_FD = 300
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


def bear(
    request: StartRequest,
    descriptors: Sequence[int],
    *,
    output: int,
    namespace: PidNamespace | None,
    record: Callable[[int], None],
) -> int:
    """The pid of the new process, which has begun ``argv``. ``record`` is called with it before that.

    With a ``namespace`` the process is born inside it and dies with this thread. Raises GuestError with the
    failed step; then no process is left.
    """
    go_read, go_write = os.pipe()
    fault_read, fault_write = os.pipe()
    try:
        with namespace.entered() if namespace else contextlib.nullcontext():
            pid = os.fork()
            if pid == 0:  # inside the block: the child must never come to the block's end
                _be_child(
                    request,
                    descriptors,
                    output=output,
                    go=(go_read, go_write),
                    fault=fault_write,
                    mortal=namespace is not None,
                )
        os.close(fault_write)
        fault_write = -1
        try:
            record(pid)
            os.write(go_write, b"!")
            fault = _read_fault(fault_read)
        except BaseException:
            _end(pid)
            raise
        if fault:
            _end(pid)
            raise GuestError(f"failed to start VM {request.vm_id}: {fault}", code="start_failed")
        return pid
    finally:
        for descriptor in (go_read, go_write, fault_read, fault_write):
            if descriptor >= 0:
                os.close(descriptor)


def _read_fault(fault: int) -> str:
    """What went wrong in the child; "" once it has begun its program."""
    if not wait_readable([fault], _EXEC_TIMEOUT_S):
        return f"its program did not begin within {_EXEC_TIMEOUT_S:g} s"
    return os.read(fault, 4096).decode(errors="replace")


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _be_child(
    request: StartRequest,
    descriptors: Sequence[int],
    *,
    output: int,
    go: tuple[int, int],
    fault: int,
    mortal: bool,
) -> None:
    """The life of the child up to exec. Never returns."""
    step = "wait"
    try:
        os.close(go[1])  # else the end of the parent would not end this wait
        if os.read(go[0], 1) != b"!":
            os._exit(126)
        step = "arrange descriptors"
        fault = _arrange(descriptors, output=output, fault=fault)
        step = "leave the guard's session"
        os.setsid()
        os.chdir("/")
        _reset_signals()
        step = f"become uid {request.uid}"
        _drop(request)
        step = "limit itself"
        process_unix.forbid_new_privileges()
        if mortal:
            process_unix.die_with_parent()
        step = f"run {request.argv[0]}"
        os.execve(request.argv[0], request.argv, _ENVIRONMENT)  # noqa: S606 - this is what the guard is for
    except OSError as error:
        os.write(fault, f"{step}: {error.strerror}".encode())
    except Exception as error:  # noqa: BLE001 - untold, it would look like a program that began and ended
        os.write(fault, f"{step}: {error}".encode())
    finally:
        os._exit(127)


def _arrange(descriptors: Sequence[int], *, output: int, fault: int) -> int:
    """0 is nothing, 1 and 2 are ``output``, FIRST_FD… are ``descriptors``, all else is closed; the new ``fault``."""
    nothing = os.open("/dev/null", os.O_RDWR)
    wanted = [nothing, output, output, *descriptors]
    raised = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD) for one in wanted]
    fault = fcntl.fcntl(fault, fcntl.F_DUPFD_CLOEXEC, _HIGH_FD)
    for number, source in enumerate(raised):
        os.dup2(source, number, inheritable=True)
    end = os.sysconf("SC_OPEN_MAX")
    os.closerange(FIRST_FD + len(descriptors), fault)
    os.closerange(fault + 1, end)
    return fault


def _reset_signals() -> None:
    """Python ignores some signals, and what is ignored or blocked stays so across exec."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _drop(request: StartRequest) -> None:
    os.umask(0o077)
    with contextlib.suppress(OSError):  # the guard may be protected from the OOM killer; a guest is not
        oom = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(oom, b"0")
        os.close(oom)
    os.setpriority(os.PRIO_PROCESS, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.setgroups(request.groups)
    os.setresgid(request.gid, request.gid, request.gid)
    os.setresuid(request.uid, request.uid, request.uid)
