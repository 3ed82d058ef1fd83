"""Whether a process that runs may go on: compared with its VM's run lock before an agent believes that it is its own.

An agent that was away does not know whether a takeover has given the VM to another host meanwhile. Rule D of
docs/failover.md. Must hold: VMs that start nowhere else are never touched; a process ends only by a positive sign that
its VM is another's, never because something was not there, was older, or did not answer.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from ucloud.agent.locks import Locks, names_process
from ucloud.errors import Conflict, StoreError, Unavailable
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.model.vm import Failover

DISOWNED = "its run lock is not this process's"


@dataclass(frozen=True, slots=True)
class Adoption:
    """Of one agent's life: each process is compared once, and again only if that had no answer."""

    locks: Locks
    _own: set[tuple[str, int, str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def why_disowned(self, process: VmProcess, *, pool_id: str) -> str:
        """ "" if the process may go on, or if nobody knows. A lock that is missing, or is another's, is taken if this
        VM is still placed here under this guard's life sign.
        """
        named = (process.vm_id, process.generation, process.incarnation)
        with self._lock:
            if process.failover is Failover.NONE or named in self._own:
                return ""
        try:
            if not self._compare(process, pool_id):
                return DISOWNED if self.locks.is_given_away(process) else ""
        except (StoreError, Unavailable):
            return ""
        with self._lock:
            self._own.add(named)
        return ""

    def _compare(self, process: VmProcess, pool_id: str) -> bool:
        """Whether the process holds the lock, as it did or by taking it now."""
        lock = self.locks.read(process.vm_id)
        if lock is not None and names_process(lock, process):
            return True
        try:
            self.locks.take(
                process.vm_id,
                generation=process.generation,
                incarnation=process.incarnation,
                failover=process.failover,
                pool_id=pool_id,
            )
        except Conflict:
            return False
        return True
