"""What an agent does for live migrations, once ``hypervisor.migration_plan`` has decided it (docs/failover.md, E).

Must hold: a guest goes on only after its run lock was read as its own (the plan's part), the guard has permitted it,
and disk and frames are its own; a guest that stands still for good is cut off the network before anybody is told.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ucloud.agent.resources import HostResources
from ucloud.agent.streams import Streams, migration_path
from ucloud.errors import Conflict, GuestError
from ucloud.hypervisor.actions import Continue, Guest, Listen, Now, ObservedVm, Plan, Send
from ucloud.hypervisor.api import Hypervisor
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.model.migration import MigrationState, Phase, Role
from ucloud.model.wanted import WantedVm
from ucloud.store.view import Entry
from ucloud.system.history import History

_RECEIVING = (Phase.PREPARING, Phase.SENDING)


@dataclass(frozen=True, slots=True)
class Migrations:
    """``find`` gives the wanted document of a VM."""

    hypervisor: Hypervisor
    resources: HostResources
    streams: Streams
    history: History
    host_id: str
    find: Callable[[str], Entry[WantedVm] | None]
    _stood: set[tuple[str, str]] = field(default_factory=set)
    _running: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def listen(self, wanted: WantedVm, action: Listen, now: Now) -> None:
        """Start a QEMU that waits for its guest."""
        self.hypervisor.prepare(wanted.vm_id, wanted.machine)
        with self.resources.prepared_for_arrival(wanted) as resources:
            self.hypervisor.start(wanted, action, resources, now)

    def send(self, wanted: WantedVm, action: Send) -> None:
        """Connect to the target and begin. Without a connection nothing was tried, and the next pass may."""
        part = wanted.migration
        if part is None:
            return

        def begin(descriptor: int) -> None:
            self.hypervisor.send(
                wanted.vm_id,
                action,
                descriptor,
                bandwidth_mib_s=part.bandwidth_mib_s,
                downtime_ms=part.downtime_ms,
            )

        path = migration_path(wanted.vm_id, action.migration_id)
        self.streams.send(wanted.vm_id, path=path, door=part.peer_door, begin=begin)

    @contextlib.contextmanager
    def receiving(self, vm_id: str, migration_id: str) -> Iterator[Callable[[socket.socket], None]]:
        """For the door: the function given carries the guest from a connection into the QEMU that waits for it.

        Raises Conflict unless this host's document names this migration, and its QEMU waits for it.
        """
        entry = self.find(vm_id)
        part = entry.value.migration if entry and not entry.value.gone else None
        named = part is not None and (part.id, part.role) == (migration_id, Role.TARGET) and part.phase in _RECEIVING
        record = self.hypervisor.observe(vm_id).record if named else None
        if record is None or not record.incoming or record.migration_id != migration_id:
            raise Conflict(f"failed to receive vm {vm_id}: this host does not wait for it", code="not_listening")
        with self.streams.receiving(vm_id, lambda fd: self.hypervisor.receive(vm_id, fd)) as carry:
            yield carry

    def go_on(self, wanted: WantedVm, observed: ObservedVm, action: Continue, now: Now) -> None:
        """Let the guest run: the guard's permit, disk and network, then QEMU."""
        process = observed.process
        if process is None:
            return
        self.hypervisor.permit(
            wanted.vm_id, generation=action.generation, boots=action.boots, incarnation=process.incarnation
        )
        source = wanted.migration.peer_host_id if wanted.migration and action.arrived else ""
        self.resources.take_over(wanted, incarnation=process.incarnation, arrived=action.arrived, moved_from=source)
        self._tell("vm_resume", process)
        try:
            self.hypervisor.apply(wanted.vm_id, action, now)
        except GuestError:  # refused: it stands as before
            self._tell("vm_paused", process)
            raise

    def settle(self, wanted: WantedVm, plan: Plan, observed: ObservedVm) -> None:
        """Before a report says that the guest stands still for good: no frame for it ends here any more."""
        if observed.guest is Guest.RUNNING and observed.process is not None:
            self._tell_running(observed.process)
        seen = plan.migration
        if seen is None or seen.role is not Role.SOURCE or seen.state is not MigrationState.COMPLETED:
            return
        named = (wanted.vm_id, seen.id)
        with self._lock:
            known = named in self._stood
        if known or observed.process is None or not observed.process.running:
            return
        self._tell("vm_paused", observed.process)
        self.resources.unplug(wanted)
        with self._lock:
            self._stood.add(named)

    def _tell_running(self, process: VmProcess) -> None:
        """Once per process: QEMU says that the guest runs, so it has its disk's lock."""
        with self._lock:
            known = self._running.get(process.vm_id) == process.pid
            self._running[process.vm_id] = process.pid
        if not known:
            self._tell("vm_running", process)

    def _tell(self, kind: str, process: VmProcess) -> None:
        self.history.tell(
            kind,
            vm=process.vm_id,
            host=self.host_id,
            generation=process.generation,
            boots=process.boots,
            incarnation=process.incarnation,
            pid=process.pid,
        )
