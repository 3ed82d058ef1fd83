"""The decision table of live migrations: every phase against everything that can be observed and every lock.

What must never be is said by ``check``, of each of the combinations; what shall happen, by the tables below it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tests.unit.hypervisor.wishes import VM_ID, at, wanted
from ucloud.hypervisor.actions import (
    Action,
    CancelSend,
    Collect,
    Continue,
    Guest,
    Kill,
    Listen,
    ObservedVm,
    Plan,
    PowerDown,
    Quit,
    Remove,
    Resume,
    Send,
    Start,
)
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.migration_plan import LockView, plan_pass
from ucloud.hypervisor.migration_status import MigrationStatus, Transfer
from ucloud.hypervisor.record import End, VmRecord
from ucloud.model.migration import MigrationState, Phase, Role, WantedMigration
from ucloud.model.seen import GuestState
from ucloud.model.vm import Failover
from ucloud.model.wanted import WantedVm

ID, OLD_ID = "m-1", "m-0"
SOURCE_GENERATION, TARGET_GENERATION = 1, 2


def part(role: Role, phase: Phase) -> WantedMigration:
    return WantedMigration(
        ID, role, phase, "host-2", "https://[fd00::2]:8443", bandwidth_mib_s=0, downtime_ms=300, until=""
    )


def wish(role: Role | None, phase: Phase | None, **changes: object) -> WantedVm:
    """A document of this host; ``role`` None: no migration in it."""
    generation = TARGET_GENERATION if role is Role.TARGET else SOURCE_GENERATION
    made = wanted(generation=generation, migration=part(role, phase) if role and phase else None)
    return replace(made, **changes)  # type: ignore[arg-type]


def process(generation: int, *, running: bool = True, frozen: bool = False) -> VmProcess:
    return VmProcess(
        VM_ID,
        generation,
        1,
        "inc-1",
        Failover.RESTART,
        100,
        running,
        "then",
        exit_code=-1 if running else 1,
        frozen=frozen,
    )


@dataclass(frozen=True)
class Sight:
    """What there is on the host."""

    guest: Guest = Guest.NONE
    transfer: Transfer = Transfer.NONE
    generation: int = 0  # of the process; 0: there is none
    running: bool = True
    frozen: bool = False
    migration_id: str = ""
    incoming: bool = False
    end: End = End.NONE

    def observed(self) -> ObservedVm:
        record = VmRecord(
            VM_ID,
            generation=self.generation or SOURCE_GENERATION,
            boots=1,
            migration_id=self.migration_id,
            incoming=self.incoming,
            end=self.end,
        )
        found = process(self.generation, running=self.running, frozen=self.frozen) if self.generation else None
        return ObservedVm(
            VM_ID, record, has_files=True, process=found, guest=self.guest, migration=MigrationStatus(self.transfer)
        )


def sights() -> Iterator[Sight]:
    """All that QEMU, the guard and the record can say together, sensible or not."""
    records = [(ID, True), (ID, False), (OLD_ID, True), (OLD_ID, False), ("", False)]
    for migration_id, incoming in records:
        for end in (End.NONE, End.LOST, End.CRASHED):
            yield Sight(migration_id=migration_id, incoming=incoming, end=end)
        for generation in (SOURCE_GENERATION, TARGET_GENERATION, 3):
            yield Sight(generation=generation, running=False, migration_id=migration_id, incoming=incoming)
            for guest, transfer, frozen in itertools.product(Guest, Transfer, (False, True)):
                if guest is not Guest.NONE:
                    yield Sight(guest, transfer, generation, True, frozen, migration_id, incoming)


WISHES = [
    *(wish(role, phase) for role in Role for phase in Phase),
    wish(None, None),
    wish(None, None, generation=TARGET_GENERATION),
    wish(None, None, gone=True, keep_disk=True),
    wish(None, None, generation=TARGET_GENERATION, gone=True, keep_disk=True),
    wish(Role.SOURCE, Phase.MOVED, gone=True, keep_disk=True),
    wish(Role.TARGET, Phase.ABORTING, gone=True, keep_disk=True),
]


def check(document: WantedVm, sight: Sight, lock: LockView, plan: Plan) -> None:
    """The laws of rule E, of one decision."""
    action, phase = plan.action, document.migration.phase if document.migration else None
    is_source = document.migration is not None and document.migration.role is Role.SOURCE
    never_ran = sight.incoming and sight.guest is not Guest.RUNNING
    if isinstance(action, Continue):
        assert lock is LockView.OWN, "nobody goes on without the run lock"
        assert action.generation == sight.generation == document.generation
        assert not sight.frozen
        assert not document.gone
        if action.arrived:
            assert never_ran
            assert sight.transfer is Transfer.COMPLETED, "and nobody with half a memory"
            assert phase in (Phase.MOVED, None, Phase.DONE, Phase.FAILED, Phase.CANCELLED) or is_source
        else:
            assert sight.guest is Guest.SENT
            own_sending = phase is Phase.SENDING and sight.migration_id == ID and not sight.incoming
            assert not (is_source and own_sending), "the lock may move at any moment"
            assert not (is_source and phase is Phase.MOVED)
    if isinstance(action, Start):
        assert not sight.generation, "nothing is started beside a process"
        assert not (is_source and phase in (Phase.SENDING, Phase.MOVED))
        assert not (document.migration and document.migration.role is Role.TARGET and phase in BEFORE_MOVE)
        assert not (document.migration and document.migration.role is Role.TARGET and phase is Phase.ABORTING)
    if isinstance(action, Listen):
        assert (document.migration is not None, phase) == (True, Phase.PREPARING)
        assert not sight.generation
    if isinstance(action, Send):
        assert (is_source, phase, sight.guest) == (True, Phase.SENDING, Guest.RUNNING)
        assert sight.migration_id != ID or sight.incoming, "once per migration"
    if isinstance(action, Resume):
        assert not never_ran, "resume is for guests that run here"
    if isinstance(action, Kill | PowerDown | Quit):
        check_end(document, sight, lock, action)
    if sight.guest is Guest.SENT or never_ran:
        assert not isinstance(action, PowerDown)
    check_report(document, sight, plan)


BEFORE_MOVE = (Phase.PREPARING, Phase.SENDING)


def check_end(document: WantedVm, sight: Sight, lock: LockView, action: Action) -> None:
    """Whatever ends has a positive sign: it has not run, was sent away, has ended by itself, or is wanted no more."""
    harmless = sight.guest in (Guest.SENT, Guest.INCOMING, Guest.POWERED_OFF, Guest.CRASHED) or sight.incoming
    moved = document.migration is not None and document.migration.phase is Phase.MOVED
    newer = document.gone or document.generation > sight.generation
    assert harmless or moved or newer
    if sight.guest is Guest.SENT and not (document.gone or moved or newer) and isinstance(action, Kill):
        target = document.migration is not None and document.migration.role is Role.TARGET
        assert lock is LockView.OTHER or target, "what may still go on is not ended"


def check_report(document: WantedVm, sight: Sight, plan: Plan) -> None:
    seen = plan.migration
    if seen is None:
        return
    assert document.migration is not None
    assert (seen.id, seen.role) == (ID, document.migration.role)
    if seen.state is MigrationState.COMPLETED and document.migration.phase is Phase.SENDING:
        assert (sight.guest, sight.migration_id, sight.incoming) == (Guest.SENT, ID, False)
        assert not sight.frozen
        assert plan.action is None, "what has completed stands still for ever"
    if seen.state is MigrationState.RECEIVED and document.migration.phase in BEFORE_MOVE:
        assert sight.incoming
        assert sight.migration_id == ID
        assert sight.guest not in (Guest.INCOMING, Guest.RUNNING, Guest.SILENT)
        assert sight.transfer is Transfer.COMPLETED
    if seen.state is MigrationState.WITHDRAWN and seen.role is Role.TARGET:
        assert not sight.generation, "there is nothing left that could ever run"


def decide(document: WantedVm, sight: Sight, lock: LockView) -> Plan:
    """As an agent does: the lock is read only if the plan asks for it."""
    plan = plan_pass(document, sight.observed(), at(0))
    return plan_pass(document, sight.observed(), at(0), lock) if plan.needs_lock else plan


def test_no_combination_breaks_a_law() -> None:
    count = 0
    for document, sight, lock in itertools.product(WISHES, sights(), (LockView.OWN, LockView.OTHER, LockView.UNKNOWN)):
        plan = decide(document, sight, lock)
        assert not plan.needs_lock
        try:
            check(document, sight, lock, plan)
        except AssertionError as error:
            raise AssertionError(f"{document.migration} {document.generation} {sight} {lock}: {plan}") from error
        count += 1
    assert count > 10_000


@pytest.mark.parametrize("lock", [LockView.UNKNOWN, LockView.OTHER, LockView.UNREAD])
def test_without_its_lock_nobody_goes_on(lock: LockView) -> None:
    for document, sight in itertools.product(WISHES, sights()):
        assert not isinstance(plan_pass(document, sight.observed(), at(0), lock).action, Continue)


LIVE = Sight(Guest.RUNNING, generation=SOURCE_GENERATION)
SENDING = replace(LIVE, transfer=Transfer.ACTIVE, migration_id=ID)
SENT = replace(SENDING, guest=Guest.SENT, transfer=Transfer.COMPLETED)
COPY = Sight(Guest.INCOMING, generation=TARGET_GENERATION, migration_id=ID, incoming=True)
RECEIVED = replace(COPY, guest=Guest.PAUSED, transfer=Transfer.COMPLETED)
GONE_COPY = Sight(migration_id=ID, incoming=True, end=End.LOST)
HERE = replace(RECEIVED, guest=Guest.RUNNING, incoming=False)

SOURCE_TABLE = [
    # phase, sight, lock, action, reported
    (Phase.PREPARING, LIVE, LockView.OWN, None, MigrationState.NONE),
    (Phase.SENDING, LIVE, LockView.OWN, Send, MigrationState.NONE),
    (Phase.SENDING, replace(LIVE, migration_id=OLD_ID, transfer=Transfer.FAILED), LockView.OWN, Send, None),
    (Phase.SENDING, SENDING, LockView.OWN, None, MigrationState.SENDING),
    (Phase.SENDING, replace(SENDING, guest=Guest.FINISHING), LockView.OWN, None, MigrationState.SENDING),
    (Phase.SENDING, SENT, LockView.OWN, None, MigrationState.COMPLETED),
    (Phase.SENDING, replace(SENT, migration_id=OLD_ID), LockView.OWN, Continue, None),
    (Phase.SENDING, replace(SENDING, transfer=Transfer.FAILED), LockView.OWN, None, MigrationState.FAILED),
    (Phase.SENDING, replace(SENDING, transfer=Transfer.NONE), LockView.OWN, None, MigrationState.FAILED),
    (Phase.SENDING, replace(SENT, guest=Guest.RUNNING), LockView.OWN, None, MigrationState.FAILED),
    (Phase.SENDING, replace(SENDING, guest=Guest.SILENT), LockView.OWN, None, MigrationState.SENDING),
    (Phase.SENDING, Sight(end=End.LOST), LockView.OWN, None, MigrationState.FAILED),
    (Phase.SENDING, Sight(end=End.LOST, migration_id=ID), LockView.OWN, None, MigrationState.FAILED),
    (Phase.SENDING, replace(SENDING, guest=Guest.POWERED_OFF), LockView.OWN, Quit, None),
    (Phase.ABORTING, SENDING, LockView.OWN, CancelSend, MigrationState.SENDING),
    (Phase.ABORTING, SENT, LockView.OWN, Continue, MigrationState.COMPLETED),
    (Phase.ABORTING, SENT, LockView.OTHER, Kill, MigrationState.COMPLETED),
    (Phase.ABORTING, SENT, LockView.UNKNOWN, None, MigrationState.COMPLETED),
    (Phase.ABORTING, replace(SENT, guest=Guest.RUNNING), LockView.OWN, None, MigrationState.WITHDRAWN),
    (Phase.ABORTING, replace(SENDING, transfer=Transfer.CANCELLED), LockView.OWN, None, MigrationState.WITHDRAWN),
    (Phase.ABORTING, Sight(end=End.LOST), LockView.OWN, Start, MigrationState.WITHDRAWN),
    (Phase.MOVED, SENT, LockView.OTHER, Kill, MigrationState.COMPLETED),
    (Phase.MOVED, LIVE, LockView.OTHER, Kill, MigrationState.COMPLETED),
    (Phase.MOVED, replace(SENT, guest=Guest.SILENT), LockView.OTHER, Kill, MigrationState.COMPLETED),
    (Phase.MOVED, Sight(end=End.LOST), LockView.OTHER, None, MigrationState.COMPLETED),
]
TARGET_TABLE = [
    (Phase.PREPARING, Sight(), LockView.OTHER, Listen, MigrationState.NONE),
    (Phase.PREPARING, Sight(migration_id=OLD_ID, incoming=True), LockView.OTHER, Listen, MigrationState.NONE),
    (Phase.PREPARING, COPY, LockView.OTHER, None, MigrationState.LISTENING),
    (Phase.PREPARING, replace(COPY, migration_id=OLD_ID), LockView.OTHER, Kill, None),
    (Phase.PREPARING, replace(COPY, running=False), LockView.OTHER, Collect, MigrationState.FAILED),
    (Phase.PREPARING, GONE_COPY, LockView.OTHER, None, MigrationState.FAILED),
    (Phase.SENDING, Sight(), LockView.OTHER, None, MigrationState.FAILED),
    (Phase.SENDING, COPY, LockView.OTHER, None, MigrationState.LISTENING),
    (Phase.SENDING, RECEIVED, LockView.OTHER, None, MigrationState.RECEIVED),
    (Phase.SENDING, RECEIVED, LockView.OWN, None, MigrationState.RECEIVED),
    (Phase.SENDING, replace(RECEIVED, guest=Guest.POWERED_OFF), LockView.OTHER, None, MigrationState.RECEIVED),
    (Phase.ABORTING, COPY, LockView.OTHER, Kill, None),
    (Phase.ABORTING, RECEIVED, LockView.OTHER, Kill, None),
    (Phase.ABORTING, replace(RECEIVED, guest=Guest.SILENT), LockView.OTHER, Kill, None),
    (Phase.ABORTING, GONE_COPY, LockView.OTHER, None, MigrationState.WITHDRAWN),
    (Phase.ABORTING, Sight(), LockView.OTHER, None, MigrationState.WITHDRAWN),
    (Phase.MOVED, RECEIVED, LockView.OWN, Continue, MigrationState.RECEIVED),
    (Phase.MOVED, RECEIVED, LockView.UNKNOWN, None, MigrationState.RECEIVED),
    (Phase.MOVED, RECEIVED, LockView.OTHER, Kill, MigrationState.RECEIVED),
    (Phase.MOVED, replace(RECEIVED, guest=Guest.POWERED_OFF), LockView.OWN, Quit, MigrationState.RECEIVED),
    (Phase.MOVED, replace(RECEIVED, migration_id=OLD_ID), LockView.OWN, Kill, None),
    (Phase.MOVED, COPY, LockView.OWN, Kill, MigrationState.RECEIVED),
    (Phase.MOVED, replace(COPY, running=False), LockView.OWN, Collect, MigrationState.RESUMED),
    (Phase.MOVED, HERE, LockView.OWN, None, MigrationState.RESUMED),
    (Phase.MOVED, GONE_COPY, LockView.OWN, Start, MigrationState.RESUMED),
]


@pytest.mark.parametrize(
    ("role", "phase", "sight", "lock", "action", "state"),
    [*((Role.SOURCE, *row) for row in SOURCE_TABLE), *((Role.TARGET, *row) for row in TARGET_TABLE)],
)
def test_what_happens(
    role: Role, phase: Phase, sight: Sight, lock: LockView, action: type[Action] | None, state: MigrationState | None
) -> None:
    plan = decide(wish(role, phase), sight, lock)
    assert (type(plan.action) if plan.action else None) is action, plan
    if state is not None:
        assert plan.migration is not None
        assert plan.migration.state is state, plan


@pytest.mark.parametrize("sight", [COPY, RECEIVED, replace(RECEIVED, guest=Guest.SILENT), SENT])
def test_a_tombstone_ends_what_stands_still_at_once_and_whatever_its_generation(sight: Sight) -> None:
    document = wish(None, None, gone=True, keep_disk=True)
    assert isinstance(decide(document, sight, LockView.UNKNOWN).action, Kill)
    assert decide(document, GONE_COPY, LockView.UNKNOWN).action == Remove()


def test_an_ended_migration_leaves_nothing_behind() -> None:
    """The agent was away, and the record has gone meanwhile."""
    home, moved = wish(None, None), wish(None, None, generation=TARGET_GENERATION)
    assert isinstance(decide(home, SENT, LockView.OWN).action, Continue)
    assert isinstance(decide(home, SENDING, LockView.OWN).action, CancelSend)
    assert isinstance(decide(moved, RECEIVED, LockView.OWN).action, Continue)
    assert isinstance(decide(moved, RECEIVED, LockView.OTHER).action, Kill)
    assert isinstance(decide(moved, COPY, LockView.OTHER).action, Kill)
    assert isinstance(decide(moved, SENT, LockView.OWN).action, Kill), "it came back, and this is from before"


def test_what_runs_here_after_a_move_is_like_any_other() -> None:
    plan = decide(wish(Role.TARGET, Phase.MOVED), replace(RECEIVED, guest=Guest.RUNNING), LockView.UNKNOWN)
    assert plan.action is not None
    assert type(plan.action).__name__ == "Arrived"
    assert plan.state is GuestState.RUNNING


def test_a_frozen_one_waits_for_its_guard() -> None:
    for sight in (SENT, RECEIVED, LIVE):
        plan = decide(wish(None, None, generation=sight.generation), replace(sight, frozen=True), LockView.OWN)
        assert plan.action is None


def test_progress_is_looked_at_every_second() -> None:
    plan = decide(wish(Role.SOURCE, Phase.SENDING), SENDING, LockView.OWN)
    assert plan.wake_at_s == at(1).monotonic_s
