"""The processes that may be started elsewhere, for the thread that ends them when this host has no evidence.

Owns a descriptor of each, so that a signal never meets another process. Must hold: whoever is admitted can be fenced
from then on, and nobody is admitted while or after everything is being fenced; nothing here touches a disk or waits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ucloud.guard.rules import Action, Fate, fate
from ucloud.hypervisor.guard_protocol import StartRequest
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover
from ucloud.system.history import History
from ucloud.system.readable import wait_readable

_SIGNALS = {Fate.KILL: signal.SIGKILL, Fate.FREEZE: signal.SIGSTOP, Fate.THAW: signal.SIGCONT}


@dataclass(slots=True)
class _Mortal:
    pid: int
    pidfd: int
    generation: int
    pool_fence: Fence
    frozen: bool = False
    told_frozen: bool = False
    stuck: bool = False
    killed: bool = False


class Mortals:
    """Thread-safe. Told on the safe side: that one stands still only once it does, that it goes on before it does."""

    def __init__(self, history: History, *, host_id: str) -> None:
        self._history = history
        self._host_id = host_id
        self._lock = threading.Lock()
        self._mortals: dict[str, _Mortal] = {}

    def admit(self, request: StartRequest, pid: int, check: Callable[[], None]) -> None:
        """Take in a process that has not begun yet. ``check`` raises if nothing may be started now."""
        with self._lock:
            check()  # after it, whoever fences waits for the lock and then finds this process
            self._mortals[request.vm_id] = _Mortal(pid, os.pidfd_open(pid), request.generation, request.pool_fence)

    def remove(self, vm_id: str) -> bool:
        """It has ended; whether it was killed for fencing. Nothing happens if it is unknown."""
        with self._lock:
            mortal = self._mortals.pop(vm_id, None)
            if mortal is not None:
                os.close(mortal.pidfd)
            return mortal is not None and mortal.killed

    def is_frozen(self, vm_id: str) -> bool:
        mortal = self._mortals.get(vm_id)
        return mortal is not None and mortal.frozen

    def is_stuck(self, vm_id: str) -> bool:
        mortal = self._mortals.get(vm_id)
        return mortal is not None and mortal.stuck

    @property
    def any_frozen(self) -> bool:
        with self._lock:
            return any(mortal.frozen for mortal in self._mortals.values())

    @property
    def stuck(self) -> tuple[str, ...]:
        """The VMs whose process was told to stop and did not, in time."""
        with self._lock:
            return tuple(sorted(vm_id for vm_id, mortal in self._mortals.items() if mortal.stuck))

    def do(self, action: Action) -> None:
        """Signal each as it must be. May be repeated; all are killed before any of it is told."""
        killed: list[tuple[str, _Mortal]] = []
        with self._lock:
            for vm_id, mortal in self._mortals.items():
                meets = fate(action, Failover.RESTART, mortal.pool_fence, frozen=mortal.frozen)
                if meets is Fate.THAW:
                    self._tell("vm_thaw", vm_id, mortal)
                if meets is not Fate.NOTHING and _send(mortal, meets):
                    mortal.frozen = meets is Fate.FREEZE
                    mortal.told_frozen = mortal.told_frozen and mortal.frozen
                    mortal.killed = meets is Fate.KILL
                    if mortal.killed:
                        killed.append((vm_id, mortal))
        for vm_id, mortal in killed:
            self._tell("vm_kill", vm_id, mortal)

    def tell_frozen(self) -> None:
        """Tell of each, once, that it was frozen and stands still."""
        with self._lock:
            for vm_id, mortal in self._mortals.items():
                if mortal.frozen and not mortal.told_frozen and _is_still(mortal):
                    mortal.told_frozen = True
                    self._tell("vm_freeze", vm_id, mortal)

    def note_moving(self) -> bool:
        """Mark those as stuck that are neither dead nor stopped; whether there are any."""
        with self._lock:
            for mortal in self._mortals.values():
                mortal.stuck = not _is_still(mortal)
            return any(mortal.stuck for mortal in self._mortals.values())

    def any_moving(self) -> bool:
        with self._lock:
            return not all(_is_still(mortal) for mortal in self._mortals.values())

    def clear_stuck(self) -> None:
        with self._lock:
            for mortal in self._mortals.values():
                mortal.stuck = False

    def _tell(self, kind: str, vm_id: str, mortal: _Mortal) -> None:
        self._history.tell(kind, host=self._host_id, vm=vm_id, generation=mortal.generation, pid=mortal.pid)

    def close(self) -> None:
        for vm_id in list(self._mortals):
            self.remove(vm_id)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(tuple(self._mortals))


def _send(mortal: _Mortal, meets: Fate) -> bool:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(mortal.pidfd, _SIGNALS[meets])
        return True
    return False


def _is_still(mortal: _Mortal) -> bool:
    """Whether it has ended, or all its threads have stopped (the kernel tells its parent of a stop only then)."""
    if wait_readable([mortal.pidfd], 0):
        return True
    if not mortal.frozen:
        return False
    try:
        return os.waitid(os.P_PIDFD, mortal.pidfd, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # reaped meanwhile
        return True
