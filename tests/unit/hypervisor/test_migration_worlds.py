"""Live migrations in a small simulated world of two hosts: whatever happens, and in whatever order, one runs at most.

Hosts see their documents late, agents die between a decision and its deed (and others act in between), streams break
at any point, also so that only one side has heard of the end, and the scheduler gives up when it likes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.hypervisor.wishes import VM_ID, at, wanted
from ucloud.errors import Error
from ucloud.hypervisor.actions import Continue, Guest, Listen, ObservedVm, Plan, Send, Start
from ucloud.hypervisor.fake import FakeHypervisor, FakeMachine
from ucloud.hypervisor.migration_plan import LockView, plan_pass
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources
from ucloud.model.migration import MigrationState, Phase, Role, SeenMigration, WantedMigration
from ucloud.model.seen import GuestState
from ucloud.model.vm import Restart
from ucloud.model.wanted import WantedVm

RESOURCES = Resources(Disk(DiskLayer("/pool/root.qcow2", "qcow2")))
RESTS = (GuestState.STOPPED, GuestState.CRASHED, GuestState.GONE)
SOURCE, TARGET = "h1", "h2"
HOME = wanted(restart=Restart.ALWAYS)


@dataclass
class Host:
    """``documents`` are all versions that were written for it; ``version`` is the one that it has seen."""

    id: str
    machine: FakeMachine = field(default_factory=FakeMachine)
    documents: list[WantedVm | None] = field(default_factory=lambda: [None])
    version: int = 0
    decided: tuple[Plan, WantedVm | None] | None = None
    part: SeenMigration | None = None

    def observe(self) -> ObservedVm:
        return FakeHypervisor(self.machine).observe(VM_ID)

    def runs(self) -> bool:
        process = self.machine.processes.get(VM_ID)
        return process is not None and process.running and self.machine.guests.get(VM_ID) is Guest.RUNNING


class World:
    """The store's placement, lock and record, and the two hosts. Each method is one thing that can happen."""

    def __init__(self) -> None:
        self.hosts = {host_id: Host(host_id) for host_id in (SOURCE, TARGET)}
        self.lock: tuple[str, int] | None = None
        self.placed = (SOURCE, 1)
        self.phase: Phase | None = None
        self.number = 0
        self.seconds = 0.0
        self.stream = False
        self.write(SOURCE, HOME)
        self.settle()

    def write(self, host_id: str, document: WantedVm) -> None:
        if self.hosts[host_id].documents[-1] != document:
            self.hosts[host_id].documents.append(document)

    def compose(self) -> None:
        """Both documents as the record has it, or as it is when the record is over."""
        moved = self.placed[0] == TARGET
        gone = replace(HOME, generation=2, gone=True, keep_disk=True)
        if self.phase is None:
            home = replace(HOME, generation=self.placed[1])
            self.write(SOURCE, gone if moved else home)
            self.write(TARGET, home if moved else gone)
            return
        for host_id, role, generation in ((SOURCE, Role.SOURCE, 1), (TARGET, Role.TARGET, 2)):
            part = WantedMigration(f"m-{self.number}", role, self.phase, "peer", "https://peer", 0, 300, "")
            self.write(host_id, replace(HOME, generation=generation, migration=part))

    def set_phase(self, phase: Phase | None) -> None:
        self.phase = phase
        self.compose()

    # What the scheduler does

    def begin(self) -> None:
        if self.phase is None and self.placed[0] == SOURCE:
            self.number += 1
            self.set_phase(Phase.PREPARING)

    def schedule(self) -> None:
        """One step of the record, by what both hosts have said of it."""
        source, target = (self.said(host_id) for host_id in (SOURCE, TARGET))
        failed = MigrationState.FAILED in (source, target) or MigrationState.WITHDRAWN in (source, target)
        if self.phase is Phase.PREPARING and target is MigrationState.LISTENING:
            self.set_phase(Phase.SENDING)
        elif self.phase is Phase.SENDING and (source, target) == (MigrationState.COMPLETED, MigrationState.RECEIVED):
            if self.lock == (SOURCE, 1):  # else the transaction fails
                self.lock, self.placed = (TARGET, 2), (TARGET, 2)
                self.set_phase(Phase.MOVED)
        elif self.phase in (Phase.PREPARING, Phase.SENDING) and failed:
            self.set_phase(Phase.ABORTING)
        elif (self.phase, target) in (
            (Phase.ABORTING, MigrationState.WITHDRAWN),
            (Phase.MOVED, MigrationState.RESUMED),
        ):
            self.set_phase(None)

    def abort(self) -> None:
        if self.phase in (Phase.PREPARING, Phase.SENDING):
            self.set_phase(Phase.ABORTING)

    def give_up(self) -> None:
        """The record ends although a host has not answered for a long time."""
        if self.phase in (Phase.ABORTING, Phase.MOVED):
            self.set_phase(None)

    def said(self, host_id: str) -> MigrationState:
        part = self.hosts[host_id].part
        return part.state if part and part.id == f"m-{self.number}" else MigrationState.NONE

    # What agents do

    def see(self, host_id: str) -> None:
        """The host's documents come in, one by one."""
        host = self.hosts[host_id]
        host.version = min(host.version + 1, len(host.documents) - 1)

    def decide(self, host_id: str) -> None:
        """Observe and plan; with a rest, report."""
        host = self.hosts[host_id]
        self.seconds += 1.5
        wish, observed = host.documents[host.version], host.observe()
        plan = plan_pass(wish, observed, at(self.seconds))
        if plan.needs_lock:
            plan = plan_pass(wish, observed, at(self.seconds), self.view(host, observed))
        if plan.action is not None:
            host.decided = (plan, wish)
            return
        host.part = plan.migration
        if plan.state in RESTS and wish and self.lock and self.lock[0] == host_id and self.lock[1] <= wish.generation:
            self.lock = None

    def view(self, host: Host, observed: ObservedVm) -> LockView:
        if host.version < len(host.documents) - 1:
            return LockView.UNKNOWN
        generation = observed.process.generation if observed.process else 0
        return LockView.OWN if self.lock == (host.id, generation) else LockView.OTHER

    def act(self, host_id: str) -> None:
        """The deed of what was decided, however long ago."""
        host = self.hosts[host_id]
        if host.decided is None:
            return
        (plan, wish), host.decided = host.decided, None
        hypervisor, now, action = FakeHypervisor(host.machine), at(self.seconds), plan.action
        try:
            if isinstance(action, Start) and wish:
                if self.placed != (host_id, wish.generation) or (self.lock and self.lock[0] != host_id):
                    return  # its run lock is not to be had
                self.lock = (host_id, wish.generation)
                hypervisor.start(wish, action, RESOURCES, now)
            elif isinstance(action, Listen) and wish:
                hypervisor.start(wish, action, RESOURCES, now)
            elif isinstance(action, Send):
                self.send(action)
            elif action is not None:
                hypervisor.apply(VM_ID, action, now)
        except Error:
            return

    def send(self, action: Send) -> None:
        target = self.hosts[TARGET].machine
        FakeHypervisor(self.hosts[SOURCE].machine).send(VM_ID, action, 3, bandwidth_mib_s=0, downtime_ms=300)
        record = target.records.get(VM_ID)
        listens = target.guests.get(VM_ID) is Guest.INCOMING and record is not None
        self.stream = bool(listens and record and record.migration_id == action.migration_id)
        if not self.stream:
            self.hosts[SOURCE].machine.break_stream(VM_ID)

    def die(self, host_id: str) -> None:
        """The agent: what it had decided is never done."""
        self.hosts[host_id].decided = None

    # What happens to QEMU

    def transfers(self) -> bool:
        source = self.hosts[SOURCE].observe().migration.transfer.value == "active"
        return self.stream and source and self.hosts[TARGET].machine.guests.get(VM_ID) is Guest.INCOMING

    def complete(self) -> None:
        if self.transfers():
            self.hosts[SOURCE].machine.complete_transfer(VM_ID, self.hosts[TARGET].machine)
            self.stream = False

    def complete_unheard(self) -> None:
        """Trap 9: the target has everything, and the source goes on by itself."""
        if self.transfers():
            self.hosts[TARGET].machine.receive_all(VM_ID)
            self.hosts[SOURCE].machine.break_stream(VM_ID)
            self.stream = False

    def cut(self) -> None:
        self.stream = False
        for host in self.hosts.values():
            listening = host.machine.guests.get(VM_ID) is Guest.INCOMING
            if host.id == SOURCE or (listening and self.phase is Phase.SENDING):
                host.machine.break_stream(VM_ID)

    def crash(self, host_id: str) -> None:
        machine = self.hosts[host_id].machine
        process = machine.processes.get(VM_ID)
        if process is not None and process.running:
            machine.crash(VM_ID)
            self.cut()

    def settle(self) -> None:
        """Nothing more happens but what all do by themselves."""
        for _ in range(60):
            self.seconds += 30.0
            for host_id in self.hosts:
                self.see(host_id)
                self.decide(host_id)
                self.act(host_id)
                self.check()
            self.schedule()
            self.complete()
            if self.rests():
                return

    def rests(self) -> bool:
        """Where it shall end: it runs where it is placed, and of the rest nothing is left."""
        other = self.hosts[SOURCE if self.placed[0] == TARGET else TARGET]
        clean = VM_ID not in other.machine.processes
        return clean and self.phase is None and self.hosts[self.placed[0]].runs()

    def check(self) -> None:
        running = [host for host in self.hosts.values() if host.runs()]
        assert len(running) <= 1, "it runs twice"
        for host in running:
            generation = host.machine.processes[VM_ID].generation
            assert self.lock == (host.id, generation), f"it runs on {host.id} without its lock: {self.lock}"


HAPPENINGS = (
    *(((name,)) for name in ("begin", "schedule", "abort", "give_up", "complete", "complete_unheard", "cut")),
    *((name, host_id) for name in ("see", "decide", "act", "die", "crash") for host_id in (SOURCE, TARGET)),
)
# As it goes when nothing goes wrong: prefixes of it bring a world to any point.
WAY = (
    *(("begin",), ("see", TARGET), ("see", SOURCE), ("decide", TARGET), ("act", TARGET), ("decide", TARGET)),
    *(("schedule",), ("see", TARGET), ("see", SOURCE), ("decide", SOURCE), ("act", SOURCE), ("complete",)),
    *(("decide", SOURCE), ("decide", TARGET), ("schedule",), ("see", TARGET), ("decide", TARGET), ("act", TARGET)),
    *(("decide", TARGET), ("act", TARGET), ("decide", TARGET), ("see", SOURCE), ("decide", SOURCE), ("act", SOURCE)),
)


def do(world: World, happening: tuple[str, ...]) -> None:
    getattr(world, happening[0])(*happening[1:])
    world.check()


def check_end(world: World) -> None:
    """It runs again, once, where its placement and lock are, and nothing else is left."""
    world.settle()
    (running,) = (host for host in world.hosts.values() if host.runs())
    assert (running.id, world.phase) == (world.placed[0], None)
    assert world.lock == world.placed
    other = world.hosts[SOURCE if running.id == TARGET else TARGET]
    assert VM_ID not in other.machine.processes


@settings(max_examples=400, deadline=None)
@given(
    st.integers(0, len(WAY)),
    st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(0, 6)), max_size=25),
)
def test_whatever_happens_it_never_runs_twice_and_runs_in_the_end(
    along: int, happenings: list[tuple[tuple[str, ...], int]]
) -> None:
    """Now and then something happens, and in between things go their way."""
    world = World()
    for happening in WAY[:along]:
        do(world, happening)
    rest = list(WAY[along:])
    for happening, further in happenings:
        do(world, happening)
        for usual in rest[:further]:
            do(world, usual)
        rest = rest[further:]
    check_end(world)


LOOKS = tuple((name, host_id) for host_id in (SOURCE, TARGET) for name in ("decide", "act"))


@pytest.mark.parametrize("accident", HAPPENINGS)
@pytest.mark.parametrize("between", [(), LOOKS * 2, LOOKS * 4], ids=["at once", "a while later", "later"])
def test_one_accident_at_every_point(accident: tuple[str, ...], between: tuple[tuple[str, ...], ...]) -> None:
    """And at every point a second one, once the hosts have looked at the first."""
    for along in range(len(WAY) + 1):
        for second in (("schedule",), ("abort",), ("give_up",), ("crash", SOURCE), ("crash", TARGET)):
            world = World()
            for happening in (*WAY[:along], accident, *between, second, *WAY[along:]):
                do(world, happening)
            check_end(world)


def test_the_usual_way_ends_on_the_target() -> None:
    world = World()
    for happening in WAY:
        do(world, happening)
    assert world.hosts[TARGET].runs()
    check_end(world)
    assert world.placed == (TARGET, 2)


def test_a_decision_to_go_on_is_still_right_when_it_is_carried_out_late() -> None:
    """The lock was read, and then nothing that happens can move it: the record was past ``sending`` by then."""
    world = World()
    for happening in WAY[:12]:
        do(world, happening)
    world.decide(SOURCE)
    world.abort()
    for _ in range(3):
        world.see(SOURCE)
    world.decide(SOURCE)
    decided = world.hosts[SOURCE].decided
    assert decided is not None
    assert isinstance(decided[0].action, Continue)
    for happening in (("decide", TARGET), ("schedule",), ("give_up",), ("schedule",), ("act", SOURCE)):
        do(world, happening)
    check_end(world)
