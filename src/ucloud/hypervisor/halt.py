"""Stops all VMs of this host, for whoever stops its whole cloud: not a wish, so that they run again with the cloud.

Works beside no agent: the caller has ended it. Each VM's record is written before anything is done to its guest, so
that an interrupted stop is told from a guest that ended by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from ucloud.errors import Error, GuestError, Unavailable
from ucloud.hypervisor.actions import Guest, Now, Quit
from ucloud.hypervisor.changes import record_action, record_halt
from ucloud.hypervisor.directory import VmDirectories
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.guard_protocol import Named, VmProcess
from ucloud.hypervisor.guest import ask_guest, tell_qemu
from ucloud.hypervisor.plan import own_end
from ucloud.system.clock import Clock

Say = Callable[[str], None]

LOOK_EVERY_S = 0.25
_ENDED = (Guest.POWERED_OFF, Guest.CRASHED, Guest.SENT, Guest.INCOMING)


def halt_all(guard: GuardClient, directories: VmDirectories, clock: Clock, *, timeout_s: float, say: Say) -> None:
    """Press every guest's power button, and kill those that are not off after ``timeout_s``.

    Raises the last error of the guard, after all others were tried.
    """
    running = _running(guard)
    for process in running:
        say(f"stopping vm {process.vm_id}")
        _begin(directories, process.vm_id, Now(clock.monotonic_s(), clock.now()), timeout_s)
    deadline_s = clock.monotonic_s() + timeout_s
    while running and clock.monotonic_s() < deadline_s:
        for process in running:
            if ask_guest(directories.qmp_socket(process.vm_id)).guest in _ENDED:
                _tell(directories, process.vm_id, "quit")
        clock.sleep(LOOK_EVERY_S)
        running = _running(guard)
    _kill(guard, running, timeout_s, say)


def _begin(directories: VmDirectories, vm_id: str, now: Now, timeout_s: float) -> None:
    """Note why the VM ends, then press its power button; what cannot be noted is stopped all the same."""
    guest = ask_guest(directories.qmp_socket(vm_id)).guest
    with contextlib.suppress(GuestError, OSError):
        record = directories.read_record(vm_id)
        end = own_end(guest, record)  # that it had ended by itself stays true
        noted = record_action(record, Quit(*end), now) if end else record_halt(record, timeout_s, now)
        directories.write_record(noted)
    _tell(directories, vm_id, "quit" if guest in _ENDED else "system_powerdown")


def _tell(directories: VmDirectories, vm_id: str, command: str) -> None:
    with contextlib.suppress(Unavailable, GuestError):  # the deadline goes on anyhow
        tell_qemu(directories.qmp_socket(vm_id), command)


def _kill(guard: GuardClient, running: list[VmProcess], timeout_s: float, say: Say) -> None:
    failure: Error | None = None
    for process in running:
        say(f"vm {process.vm_id} did not power off in {timeout_s:g} s: killed")
        try:
            guard.kill(Named(process.vm_id, process.generation, process.boots))
        except Error as error:
            say(error.message)
            failure = error
    if failure is not None:
        raise failure


def _running(guard: GuardClient) -> list[VmProcess]:
    return [process for process in guard.list() if process.running]
