"""A simulated agent: makes its host run what placements and migrations say, with the real run locks.

Thinner than the real one (it reads placements instead of composed documents), but with the same order of steps: lock,
prepare, start through the guard; and every step of a migration that touches lock, ``cont`` or kill. Must hold: one step
at a time for each VM; destruction only by a positive sign.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.scenario.simulation.door import Door, Favourite
from tests.scenario.simulation.engine import Place
from tests.scenario.simulation.locking import LaxDoor, is_strict, take_lock
from tests.scenario.simulation.qemu import Qemu, Spec
from tests.scenario.simulation.reports import Reporter
from tests.scenario.simulation.watcher import Watcher, value_of
from ucloud.agent.locks import Locks
from ucloud.errors import Error
from ucloud.hypervisor.guard_protocol import StartMode
from ucloud.model.guard import RunLock
from ucloud.model.migration import Migration, MigrationState, Phase
from ucloud.model.placement import Placement
from ucloud.model.vm import Power, Vm
from ucloud.store import keys
from ucloud.store.api import Store

if TYPE_CHECKING:
    from tests.scenario.simulation.host import SimulatedHost

_AGAIN_S = 0.5
_RESYNC_S = 2.0
_PREPARE_S = (0.05, 0.3)
_SEND_S = (0.4, 1.6)
_FORCE_S = 2.0  # how long an impatient source waits, if that rule is off
_PREFIXES = (keys.placements(), keys.migrations(), keys.specs("vm"))


def held_locks(store: Store, host_id: str) -> frozenset[str]:
    """The ids of the VMs whose locks this host holds."""
    return frozenset(keys.last_segment(item.key) for item in store.list(keys.locks_of(host_id)).items)


class Agent:
    def __init__(self, host: SimulatedHost) -> None:
        self.host = host
        self.cloud = host.cloud
        self.engine = host.cloud.engine
        self.place = Place(f"{host.name}/agent", host.machine)
        self._favourite = Favourite(self.engine, self.cloud.cluster)
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._reports = Reporter(host, self.place, self._door)
        self._sending: set[tuple[str, str]] = set()  # VM and migration: ids of one pass are alike
        self._maybe_locked: set[str] = set()
        self._unsure: set[str] = set(host.processes)
        self.watcher = Watcher(
            self.engine,
            self.cloud.network,
            self.cloud.cluster,
            node=host.name,
            place=self.place,
            on_change=self._changed,
            prefixes=_PREFIXES,
        )
        self.cloud.hub.add(self.watcher)
        self._door().run(lambda door: held_locks(door, host.name), self._begin)

    def _begin(self, held: Any) -> None:
        """What an agent before this one may have left."""
        if isinstance(held, Error):
            self.engine.after(_AGAIN_S, self._retry_begin, place=self.place)
            return
        self._maybe_locked |= held
        self.watcher.wake()
        self._resync()

    def _retry_begin(self) -> None:
        self._door().run(lambda door: held_locks(door, self.host.name), self._begin)

    def _door(self) -> Door:
        return Door(
            self.engine,
            self.cloud.cluster,
            node=self.host.name,
            place=self.place,
            tell=self.cloud.tell,
            favourite=self._favourite,
        )

    def _changed(self, changed: list[str]) -> None:
        for vm in sorted({keys.last_segment(key) for key in changed}):
            self.look(vm)

    def _resync(self) -> None:
        self.engine.after(_RESYNC_S, self._resync, place=self.place)
        for vm in sorted({*self._maybe_locked, *self.host.processes, *self.cloud.vms}):
            self.look(vm)

    # One VM at a time

    def look(self, vm: str) -> None:
        if vm in self._busy:
            self._again.add(vm)
            return
        self._again.discard(vm)
        self._decide(vm)

    def _do(self, vm: str) -> None:
        self._busy.add(vm)

    def _done(self, vm: str, *, again_s: float = 0.0) -> None:
        self._busy.discard(vm)
        if again_s:
            self.engine.after(again_s, self.look, vm, place=self.place)
        elif vm in self._again:
            self.engine.after(0.001, self.look, vm, place=self.place)

    def _decide(self, vm: str) -> None:
        placement: Placement | None = self.watcher.get(keys.placement(vm))
        record: Migration | None = self.watcher.get(keys.migration(vm))
        process = self.host.processes.get(vm)
        if process is not None and vm in self._unsure:
            self._adopt(vm, process)
        elif process is None:
            self._decide_absent(vm, placement, record)
        elif process.incoming:
            self._decide_target(vm, process, placement, record)
        else:
            self._decide_running(vm, process, placement, record)

    def _adopt(self, vm: str, process: Qemu) -> None:
        """An agent before this one started it: it may go on if VM, generation and incarnation equal its lock."""
        self._do(vm)

        def read(answer: Any) -> None:
            if isinstance(answer, Error):
                self._done(vm, again_s=_AGAIN_S)
                return
            self._unsure.discard(vm)
            incoming = process.incoming
            owned = answer is not None and self._is_mine(value_of(answer.value), process)
            if not (owned or incoming):
                self.cloud.tell("disowned", vm=vm, host=self.host.name)
                self._kill(process)
            self._done(vm, again_s=0.01)

        self._door().run(lambda door: door.get(keys.lock(self.host.name, vm)), read)

    def _is_mine(self, lock: RunLock, process: Qemu) -> bool:
        return (lock.incarnation, lock.generation) == (process.incarnation, process.spec.generation)

    def _wants(self, vm: str, placement: Placement | None) -> bool:
        spec: Vm | None = self.watcher.get(keys.spec("vm", vm))
        if placement is None or spec is None or placement.host_id != self.host.name:
            return False
        if placement.generation < self.host.generations.get(vm, 0):
            return False  # a lowered generation never starts anything
        return spec.spec.power is Power.RUNNING and not spec.meta.deleted_at

    def _decide_absent(self, vm: str, placement: Placement | None, record: Migration | None) -> None:
        part = self._reports.parts.get(vm)
        if record is not None and record.target == self.host.name:
            if record.phase in (Phase.PREPARING, Phase.SENDING):
                if part is None or part.id != record.id:
                    self._start_incoming(vm, record)
                elif part.state not in (MigrationState.FAILED, MigrationState.WITHDRAWN):
                    self._reports.say(vm, record, MigrationState.FAILED, "its QEMU is gone")
                return
            withdrawn = part is not None and (part.id, part.state) == (record.id, MigrationState.WITHDRAWN)
            if record.phase is Phase.ABORTING and not withdrawn:
                self._reports.say(vm, record, MigrationState.WITHDRAWN)
                return
        if self._waits_for_abort(vm, placement, record):
            return
        if self._wants(vm, placement):
            self._start(vm, placement)
        elif vm in self._maybe_locked:
            known = self.host.generations.get(vm, 0)
            self._release(vm, placement.generation if placement is not None else known)

    def _waits_for_abort(self, vm: str, placement: Placement | None, record: Migration | None) -> bool:
        """A source whose process ended may have said that all was sent: its VM starts again only when no move can
        happen any more.
        """
        if record is None or placement is None or not self.cloud.rules.restart_waits_for_the_abort:
            return False
        if record.source != self.host.name or record.generation != placement.generation:
            return False
        if record.phase not in (Phase.PREPARING, Phase.SENDING):
            return False
        self._reports.say(vm, record, MigrationState.FAILED, "its QEMU has ended")
        return True

    def _decide_running(self, vm: str, process: Qemu, placement: Placement | None, record: Migration | None) -> None:
        if process.killed or not process.born:
            return
        if placement is not None and placement.generation > process.spec.generation:
            self._kill(process)  # a newer placement: the positive sign
            return
        spec: Vm | None = self.watcher.get(keys.spec("vm", vm))
        here = placement is not None and placement.host_id == self.host.name
        if spec is not None and here and spec.spec.power is Power.STOPPED:
            self._kill(process)
            return
        if record is not None and record.source == self.host.name and record.generation == process.spec.generation:
            self._decide_source(vm, process, record)
        else:
            self._reports.write(vm)

    # Starting and ending

    def _kill(self, process: Qemu) -> None:
        """The guard does it; one that is away is asked again by a later look."""
        guard = self.host.guard
        if guard is not None:
            self.engine.after(0.001, self.host.kill, process, place=guard.place)

    def _start(self, vm: str, placement: Placement | None) -> None:
        guard = self.host.guard
        if placement is None or guard is None or guard.place.dead:
            self._done(vm, again_s=_AGAIN_S)
            return
        self._do(vm)
        self._maybe_locked.add(vm)
        incarnation, spec = guard.incarnation, self.watcher.get(keys.spec("vm", vm))
        failover = spec.spec.failover

        def locked(answer: Any) -> None:
            if isinstance(answer, Error):
                self._done(vm, again_s=_AGAIN_S)
                return
            prepare_s = self.host.prepare_s
            delay_s = self.engine.span_s(*_PREPARE_S) if prepare_s is None else prepare_s
            what = Spec(vm, placement.generation, 1, failover)
            self.engine.after(delay_s, self._hand_over, what, incarnation, place=self.place)

        self._door().run(
            lambda door: take_lock(
                self._lock_door(door), self.host.name, placement, incarnation=incarnation, failover=failover
            ),
            locked,
        )

    def _lock_door(self, door: Door) -> Any:
        return door if is_strict(self.cloud.rules) else LaxDoor(door, self.cloud.rules)

    def _hand_over(self, spec: Spec, incarnation: str) -> None:
        vm = spec.vm

        def answered(refused: str) -> None:
            if refused:
                self.cloud.tell("start_refused", vm=vm, host=self.host.name, reason=refused)
                self._done(vm, again_s=_AGAIN_S)
                return
            self.host.generations[vm] = max(spec.generation, self.host.generations.get(vm, 0))
            self._done(vm, again_s=0.001)

        self._to_guard(lambda reply: self._guard_start(spec, incarnation, reply), answered)

    def _guard_start(self, spec: Spec, incarnation: str, reply: Callable[[str], None]) -> None:
        guard = self.host.guard
        assert guard is not None
        guard.start(spec, incarnation, reply)

    def _to_guard(self, ask: Callable[[Callable[[str], None]], None], answered: Callable[[str], None]) -> None:
        """A frozen guard answers when it thaws, a dead one never: then the connection ends."""
        guard = self.host.guard
        if guard is None or guard.place.dead:
            self.engine.after(0.001, answered, "no guard", place=self.place)
            return
        settled: list[str] = []

        def reply(refused: str) -> None:
            if not settled:
                settled.append(refused)
                self.engine.after(0.001, answered, refused, place=self.place)

        def look() -> None:
            if not settled:
                if guard.place.is_dead:
                    reply("the guard has ended")
                else:
                    self.engine.after(0.5, look, place=self.place)

        self.engine.after(0.001, ask, reply, place=guard.place)
        self.engine.after(0.5, look, place=self.place)

    def _release(self, vm: str, generation: int) -> None:
        """Its process is reaped, and it is not to run here."""
        self._do(vm)

        def released(answer: Any) -> None:
            if isinstance(answer, Error):
                self._done(vm, again_s=_AGAIN_S)
                return
            self._maybe_locked.discard(vm)
            self._reports.note_gone(vm)
            self._done(vm)

        self._door().run(lambda door: Locks(door, self.host.name, door).release(vm, generation=generation), released)

    # Migration

    def _decide_source(self, vm: str, process: Qemu, record: Migration) -> None:
        over = record.phase in (Phase.ABORTING, Phase.FAILED, Phase.CANCELLED)
        if record.phase is Phase.SENDING and not process.stands and (vm, record.id) not in self._sending:
            self._sending.add((vm, record.id))
            self._reports.say(vm, record, MigrationState.SENDING)
            self.engine.after(self.engine.span_s(*_SEND_S), self._complete, process, record, place=self.host.machine)
        elif over and process.stands:
            self._continue(vm, process)
        elif over:
            self._sending.discard((vm, record.id))
            self._reports.write(vm)

    def _complete(self, process: Qemu, record: Migration) -> None:
        """All memory is sent: the source stands still for ever, the target has everything."""
        vm, target = process.spec.vm, self.cloud.hosts.get(record.target)
        if (vm, record.id) not in self._sending or not process.runs or target is None or self.place.is_dead:
            return
        copy = target.processes.get(vm)
        reached = self.cloud.network.both_ways(self.host.name, record.target)
        if not reached or copy is None or not copy.born or not copy.stands or target.machine.is_frozen:
            self._sending.discard((vm, record.id))
            self._reports.say(vm, record, MigrationState.FAILED, "the target is not reached")
            return
        self.host.pause(process)
        self._reports.say(vm, record, MigrationState.COMPLETED)
        if target.agent is not None:
            self.cloud.network.send(
                self.host.name, record.target, target.agent.place, target.agent.received, copy, record
            )
        if not self.cloud.rules.abort_is_committed_first:
            self.engine.after(_FORCE_S, self._continue_anyway, process, place=self.place)

    def _continue_anyway(self, process: Qemu) -> None:
        """With the rule off: what had no answer is taken as failed."""
        if process.stands and not process.ended and not process.killed:
            self._to_guard(lambda reply: self._permit(process, process.incarnation, reply), lambda refused: None)

    def received(self, copy: Qemu, record: Migration) -> None:
        if not copy.ended:
            self._reports.say(copy.spec.vm, record, MigrationState.RECEIVED)
            if not self.cloud.rules.resume_needs_the_lock:
                guard = self.host.guard
                if guard is not None:
                    self._to_guard(lambda reply: self._permit(copy, guard.incarnation, reply), lambda refused: None)

    def _permit(self, process: Qemu, incarnation: str, reply: Callable[[str], None]) -> None:
        guard = self.host.guard
        assert guard is not None
        guard.permit(process, incarnation, reply)

    def _start_incoming(self, vm: str, record: Migration) -> None:
        guard = self.host.guard
        spec: Vm | None = self.watcher.get(keys.spec("vm", vm))
        if guard is None or guard.place.dead or spec is None:
            return
        self._do(vm)
        what = Spec(vm, record.generation + 1, 1, spec.spec.failover, StartMode.INCOMING)

        def answered(refused: str) -> None:
            self._done(vm)
            state = MigrationState.FAILED if refused else MigrationState.LISTENING
            self._reports.say(vm, record, state, refused)

        incarnation = guard.incarnation
        self._to_guard(lambda reply: self._guard_start(what, incarnation, reply), answered)

    def _decide_target(self, vm: str, process: Qemu, placement: Placement | None, record: Migration | None) -> None:
        if process.killed or not process.born:
            return
        here = placement is not None and placement.host_id == self.host.name
        if placement is not None and here and placement.generation == process.spec.generation:
            self._continue(vm, process, record)
            return
        if record is None:
            return
        own = record.generation + 1 == process.spec.generation
        newer = placement is not None and placement.generation > process.spec.generation
        if newer or not own or record.phase not in (Phase.PREPARING, Phase.SENDING, Phase.MOVED):
            self._kill(process)

    def _continue(self, vm: str, process: Qemu, record: Migration | None = None) -> None:
        """``cont``, if a linearizable look shows that the lock is this very process's, and the guard permits it."""
        self._do(vm)
        self._maybe_locked.add(vm)

        def looked(answer: Any) -> None:
            mine = not isinstance(answer, Error) and answer is not None
            if not mine or not self._is_mine(value_of(answer.value), process):
                self._done(vm, again_s=_AGAIN_S)
                return
            self._to_guard(lambda reply: self._permit(process, process.incarnation, reply), permitted)

        def permitted(refused: str) -> None:
            self._done(vm, again_s=_AGAIN_S if refused else 0.001)
            if not refused:
                generation = process.spec.generation
                self.host.generations[vm] = max(generation, self.host.generations.get(vm, 0))
                if record is not None:
                    self._reports.say(vm, record, MigrationState.RESUMED)

        self._door().run(lambda door: door.get(keys.lock(self.host.name, vm)), looked)
