"""The run lock of a VM: who may open its volume for writing (rule A1 of docs/failover.md).

A lock is taken in one transaction that compares the placement, this host's life sign and the absence of the
takeover's mark. It is bound to no lease: only its holder gives it back, after its process is reaped.
"""

from __future__ import annotations

from dataclasses import dataclass

from ucloud.errors import Conflict, StoreError, Unavailable
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.migration_plan import LockView
from ucloud.model.guard import LifeSign, RunLock
from ucloud.model.placement import Placement
from ucloud.model.vm import Failover
from ucloud.model.wanted import WantedVm
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Store, Txn, absent, unchanged
from ucloud.store.codec import decode_as, encode
from ucloud.store.view import Entry
from ucloud.system.history import History


def names_process(lock: RunLock, process: VmProcess) -> bool:
    """Whether the lock is this process's: the same VM, generation and guard incarnation."""
    return (lock.vm_id, lock.generation, lock.incarnation) == (
        process.vm_id,
        process.generation,
        process.incarnation,
    )


@dataclass(frozen=True, slots=True)
class Locks:
    """Takes and gives back the locks of one host."""

    store: Store
    host_id: str
    history: History

    def take(
        self, vm_id: str, *, generation: int, incarnation: str, failover: Failover = Failover.NONE, pool_id: str = ""
    ) -> None:
        """Hold the lock for this guard incarnation; nothing happens if it is held already.

        ``failover`` is what the process is, or will be, born with. The caller has made sure by the guard's list that
        no process of an earlier holder runs on this host.
        Raises Conflict if the placement is another one by now, Unavailable without a life sign.
        """
        key = keys.lock(self.host_id, vm_id)
        lock = RunLock(vm_id, self.host_id, incarnation, generation, failover, pool_id)
        held = self.store.get(key)
        if held is not None and decode_as(RunLock, held.value) == lock:
            return
        compares = (
            self._compare_placement(vm_id, generation),
            self._compare_alive(incarnation),
            absent(keys.fenced(self.host_id, incarnation)),
            unchanged(key, held.mod_revision if held else 0),
        )
        if not self.store.commit(Txn(compares, (Put(key, encode(lock)),))).ok:
            raise Conflict(f"failed to lock vm {vm_id}: placement or life sign changed meanwhile", code="lock_lost")
        self.history.tell("lock_taken", vm=vm_id, host=self.host_id, generation=generation, incarnation=incarnation)

    def read(self, vm_id: str) -> RunLock | None:
        """The lock as this host holds it; a linearizable read."""
        held = self.store.get(keys.lock(self.host_id, vm_id))
        return decode_as(RunLock, held.value) if held else None

    def view(self, process: VmProcess, document: Entry[WantedVm]) -> LockView:
        """Whose the lock is, read at one moment with ``document``, which was decided on. Never raises."""
        key = keys.lock(self.host_id, process.vm_id)
        try:
            items = self.store.read((key, document.key)).items
            current, held = items[document.key], items[key]
            lock = decode_as(RunLock, held.value) if held else None
        except (Unavailable, StoreError):
            return LockView.UNKNOWN
        if current is None or current.mod_revision != document.mod_revision:
            return LockView.UNKNOWN
        return LockView.OWN if lock is not None and names_process(lock, process) else LockView.OTHER

    def release(self, vm_id: str, *, generation: int) -> None:
        """Give the lock back, after the process was reaped; nothing happens if it is not held, or is one of a later
        generation than the one that was worked on.

        Raises Conflict if somebody else changed it meanwhile.
        """
        key = keys.lock(self.host_id, vm_id)
        held = self.store.get(key)
        if held is None or decode_as(RunLock, held.value).generation > generation:
            return
        if not self.store.commit(Txn((unchanged(key, held.mod_revision),), (Delete(key),))).ok:
            raise Conflict(f"failed to release the lock of vm {vm_id}: it changed meanwhile", code="lock_lost")
        self.history.tell("lock_released", vm=vm_id, host=self.host_id, generation=generation)

    def is_given_away(self, process: VmProcess) -> bool:
        """The positive sign that a process must end: its guard was taken over, or a newer placement stands.

        A placement that is not there, or is older (of a restored store), is none.
        """
        mark, placed = keys.fenced(self.host_id, process.incarnation), keys.placement(process.vm_id)
        items = self.store.read((mark, placed)).items
        item = items[placed]
        if items[mark] is not None:
            return True
        return item is not None and decode_as(Placement, item.value).generation > process.generation

    def _compare_placement(self, vm_id: str, generation: int) -> Compare:
        key = keys.placement(vm_id)
        item = self.store.get(key)
        placement = decode_as(Placement, item.value) if item else None
        if item is None or placement is None or (placement.host_id, placement.generation) != (self.host_id, generation):
            raise Conflict(f"failed to lock vm {vm_id}: it is not placed here any more", code="lock_lost")
        return unchanged(key, item.mod_revision)

    def _compare_alive(self, incarnation: str) -> Compare:
        key = keys.alive(self.host_id)
        item = self.store.get(key)
        if item is None:
            raise Unavailable(f"failed to lock a vm: host {self.host_id} has no life sign", code="no_life_sign")
        if decode_as(LifeSign, item.value).incarnation != incarnation:
            raise StoreError(f"failed to lock a vm: the life sign of {self.host_id} is another guard's")
        return unchanged(key, item.mod_revision)
