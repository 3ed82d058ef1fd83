"""The state machine of live migrations: what the next record of each is, and what its commit must compare. Pure.

Reads spec/vm, spec/migration, placement, migration, alive, registered, fenced, lock, takeover and what hosts saw; a
Step writes migration/<vm> and, when neither host runs the VM, lock and placement with it. (docs/failover.md, E.)

Must hold: the lock moves only by ``_move``, in one transaction that compares all it rests on; a record that began to
abort makes every late move fail; every migration ends, whatever is dead, some time after its deadline.
"""

from __future__ import annotations

import datetime
from dataclasses import replace

from ucloud.config import SchedulerSection
from ucloud.model.guard import RunLock, TakeoverPhase
from ucloud.model.migration import Migration, MigrationState, Phase, Role, SeenMigration
from ucloud.model.placement import Decision, Placement
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.vm import Power
from ucloud.scheduler.beginnings import plan_beginnings
from ucloud.scheduler.steps import Step, passed_s
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, absent, unchanged
from ucloud.store.codec import encode
from ucloud.store.view import Entry, View
from ucloud.system.clock import format_time

SETTLE_S = 60.0  # how long after its deadline an end waits for a host that says nothing
STILL_S = 10.0  # how long a guest may stand still because one side has not said how far it is
KEEP_S = 86_400.0
_ENDED = (GuestState.STOPPED, GuestState.CRASHED, GuestState.FAILED, GuestState.GONE)


def plan_migrations(
    view: View, settings: SchedulerSection, now: datetime.datetime, *, silent: frozenset[str] = frozenset()
) -> tuple[Step, ...]:
    """What to write now: the next phase of each that goes on, and those that begin, as many as hosts may have."""
    going = [step for _, entry in sorted(view.migrations.items()) if (step := plan_next(view, entry, now))]
    named = [replace(step, project=_project_of(view, step.vm_id)) for step in going]
    return (*named, *plan_beginnings(view, settings, now, silent))


def _project_of(view: View, vm_id: str) -> str:
    vm = view.vms.get(vm_id)
    return vm.value.meta.project if vm else ""


def plan_next(view: View, entry: Entry[Migration], now: datetime.datetime) -> Step | None:
    """The next record of this migration, None if there is nothing to do but to wait."""
    record = entry.value
    if record.is_over:
        return _forget(view, entry, now)
    if record.phase is Phase.ABORTING:
        return _after_abort(view, entry, now)
    if record.phase is Phase.MOVED:
        return _after_move(view, entry, now)
    if record.phase is Phase.SENDING and (step := _move(view, entry, now)):
        return step
    if reason := _trouble(view, record, now):
        cancelled = _is_cancelled(view, record)
        return _step(entry, replace(record, phase=Phase.ABORTING, reason=reason, cancelled=cancelled), now)
    if record.phase is Phase.PREPARING:
        if _state_of(view, record, Role.TARGET) is MigrationState.LISTENING:
            return _step(entry, replace(record, phase=Phase.SENDING, reason=f"{record.target} listens"), now)
        return None
    if not record.still_since and (waits := _stands_still(view, record)):
        return _step(entry, replace(record, reason=waits, still_since=format_time(now)), now, quiet=True)
    return None


def _step(entry: Entry[Migration], record: Migration, now: datetime.datetime, *, quiet: bool = False) -> Step:
    told = "" if quiet else f"migration from {record.source} to {record.target}: {record.phase.value}: {record.reason}"
    compares = (unchanged(entry.key, entry.mod_revision),)
    return Step(record.vm_id, replace(record, since=format_time(now)), compares, told=told)


# What the hosts say


def _report(view: View, record: Migration, role: Role) -> SeenVm | None:
    host_id = record.source if role is Role.SOURCE else record.target
    entry = view.seen_vms.get((host_id, record.vm_id))
    return entry.value if entry else None


def _part_of(view: View, record: Migration, role: Role) -> SeenMigration | None:
    """What the host of that role says about this very migration."""
    report = _report(view, record, role)
    part = report.migration if report else None
    return part if part is not None and (part.id, part.role) == (record.id, role) else None


def _state_of(view: View, record: Migration, role: Role) -> MigrationState:
    part = _part_of(view, record, role)
    return part.state if part else MigrationState.NONE


def _stands_still(view: View, record: Migration) -> str:
    """Whose word is missing while the other side has said that the guest stands still; "" if neither has."""
    if _state_of(view, record, Role.SOURCE) is MigrationState.COMPLETED:
        return f"all was sent; {record.target} has not said that it has it"
    if _state_of(view, record, Role.TARGET) is MigrationState.RECEIVED:
        return f"all was received; {record.source} has not said that it has sent it"
    return ""


def _is_cancelled(view: View, record: Migration) -> bool:
    request = view.migration_requests.get(record.vm_id)
    return request is not None and request.value.id == record.id and request.value.cancelled


def _loss(view: View, host_id: str, incarnation: str) -> str:
    """Why the guard that was there when the migration began is not there now; "" if it is."""
    sign = view.alive.get(host_id)
    if (host_id, incarnation) in view.fenced:
        return f"host {host_id} was taken over"
    if sign is None:
        return f"host {host_id} gives no life sign"
    return "" if sign.value.incarnation == incarnation else f"the guard of host {host_id} was started anew"


def _is_over_there(view: View, host_id: str, incarnation: str) -> bool:
    """That guard's processes have ended: a takeover is done, or a newer guard is there, which reaped them first."""
    takeover, sign = view.takeovers.get(host_id), view.alive.get(host_id)
    if takeover is not None and takeover.value.incarnation == incarnation:
        return takeover.value.phase is TakeoverPhase.DONE
    return sign is not None and sign.value.incarnation != incarnation


def _trouble(view: View, record: Migration, now: datetime.datetime) -> str:
    """Why it must not go on; "" if it may."""
    if _is_cancelled(view, record):
        return "it was cancelled"
    return (
        _loss(view, record.source, record.source_incarnation)
        or _loss(view, record.target, record.target_incarnation)
        or _change_of_wishes(view, record)
        or _failure(view, record)
        or _restart(view, record)
        or _lateness(view, record, now)
    )


def _lateness(view: View, record: Migration, now: datetime.datetime) -> str:
    if passed_s(record.until, now) >= 0:
        return "it took longer than it may"
    if record.still_since and passed_s(record.still_since, now) >= STILL_S:
        return _stands_still(view, record) or "the guest stood still for too long"
    if _both_are_done(view, record):
        return f"{record.source} does not hold the VM's lock as it did"
    return ""


def _both_are_done(view: View, record: Migration) -> bool:
    source, target = _state_of(view, record, Role.SOURCE), _state_of(view, record, Role.TARGET)
    return source is MigrationState.COMPLETED and target is MigrationState.RECEIVED


def _change_of_wishes(view: View, record: Migration) -> str:
    vm, placed = view.vms.get(record.vm_id), view.placements.get(record.vm_id)
    if vm is not None and vm.value.meta.deleted_at:
        return "the VM is being deleted"
    if vm is not None and vm.value.spec.power is Power.STOPPED:
        return "the VM was asked to stop"
    report = _report(view, record, Role.SOURCE)
    if vm is not None and report is not None and report.boots < vm.value.spec.boots:
        return "the VM was asked to boot again"
    if placed is not None and (placed.value.host_id, placed.value.generation) != (record.source, record.generation):
        return "the VM was placed anew meanwhile"
    return ""


def _restart(view: View, record: Migration) -> str:
    """The source's lock is a later one than at the beginning: the target prepared for another process."""
    lock = view.locks.get((record.source, record.vm_id))
    if lock is None or _is_lock_of(record, lock):
        return ""
    return f"the VM was started again on {record.source} meanwhile"


def _is_lock_of(record: Migration, lock: Entry[RunLock]) -> bool:
    """A record of an earlier version does not know the revision."""
    return record.lock_revision in (0, lock.mod_revision)


def _failure(view: View, record: Migration) -> str:
    report = _report(view, record, Role.SOURCE)
    if report is not None and report.state in _ENDED:
        return f"the VM is {report.state.value} on {record.source}"
    for role in Role:
        part = _part_of(view, record, role)
        if part is not None and part.state in (MigrationState.FAILED, MigrationState.WITHDRAWN):
            host_id = record.source if role is Role.SOURCE else record.target
            return f"{host_id} says: {part.reason or part.state.value}"
    return ""


# The move


def _move(view: View, entry: Entry[Migration], now: datetime.datetime) -> Step | None:
    """Neither runs: lock, placement and record move together. None if that is not sure, or not allowed."""
    record = entry.value
    if not _both_are_done(view, record):
        return None
    lock, placed = view.locks.get((record.source, record.vm_id)), view.placements.get(record.vm_id)
    compares = _guards_stand(view, record)
    if not compares or lock is None or placed is None or not _is_holder(record, lock.value, placed.value):
        return None
    if not _is_lock_of(record, lock):
        return None
    new_lock = replace(
        lock.value,
        host_id=record.target,
        incarnation=record.target_incarnation,
        generation=record.generation + 1,
    )
    step = _step(entry, _with_move(view, record), now)
    target_key = keys.lock(record.target, record.vm_id)
    return replace(
        step,
        compares=(
            *step.compares,
            *compares,
            unchanged(lock.key, lock.mod_revision),
            absent(target_key),
            unchanged(placed.key, placed.mod_revision),
        ),
        writes=(
            Delete(lock.key),
            Put(target_key, encode(new_lock)),
            Put(placed.key, encode(_moved(placed.value, record, view.revision, now))),
        ),
    )


def _with_move(view: View, record: Migration) -> Migration:
    sent = _part_of(view, record, Role.SOURCE)
    downtime_ms = sent.downtime_ms if sent else 0
    return replace(record, phase=Phase.MOVED, reason="neither host ran it when its lock moved", downtime_ms=downtime_ms)


def _guards_stand(view: View, record: Migration) -> tuple[Compare, ...]:
    """What holds as long as both guards are those of the beginning, alive and not taken over; () if they are not."""
    compares: list[Compare] = []
    for host_id, incarnation in (
        (record.source, record.source_incarnation),
        (record.target, record.target_incarnation),
    ):
        if _loss(view, host_id, incarnation) or host_id not in view.registered:
            return ()
        alive, registered = view.alive[host_id], view.registered[host_id]
        compares += [
            unchanged(alive.key, alive.mod_revision),
            unchanged(registered.key, registered.mod_revision),
            absent(keys.fenced(host_id, incarnation)),
        ]
    return tuple(compares)


def _is_holder(record: Migration, lock: RunLock, placement: Placement) -> bool:
    holder = (record.source, record.source_incarnation, record.generation)
    placed = (placement.host_id, placement.generation)
    return (lock.host_id, lock.incarnation, lock.generation) == holder and placed == (record.source, record.generation)


def _moved(placement: Placement, record: Migration, revision: int, now: datetime.datetime) -> Placement:
    reason = f"moved from {record.source} while it ran ({record.cause})"
    return replace(
        placement,
        host_id=record.target,
        generation=record.generation + 1,
        at=format_time(now),
        decision=Decision(revision, placement.decision.considered, reason=reason),
    )


# Ends


def _after_move(view: View, entry: Entry[Migration], now: datetime.datetime) -> Step | None:
    record = entry.value
    state, report = _state_of(view, record, Role.TARGET), _report(view, record, Role.TARGET)
    placed = view.placements.get(record.vm_id)
    if state is MigrationState.RESUMED:
        return _end(entry, Phase.DONE, f"it runs on {record.target}", now)
    if placed is not None and placed.value.generation > record.generation + 1:
        return _end(entry, Phase.FAILED, f"{record.target} was lost after the move; the VM was placed anew", now)
    if _is_over_there(view, record.target, record.target_incarnation):
        return _end(entry, Phase.FAILED, f"{record.target} was lost after the move", now)
    if state in (MigrationState.FAILED, MigrationState.WITHDRAWN):
        part = _part_of(view, record, Role.TARGET)
        return _end(entry, Phase.FAILED, f"{record.target} says after the move: {part.reason if part else ''}", now)
    if report is not None and report.generation > record.generation and _has_its_own_way(report.state, state):
        return _end(entry, Phase.DONE, f"it is {report.state.value} on {record.target}", now)
    if passed_s(record.until, now) >= SETTLE_S:
        return _end(entry, Phase.FAILED, f"{record.target} has not said that it goes on since the move", now)
    return None


def _has_its_own_way(guest: GuestState, part: MigrationState) -> bool:
    """The VM on the target runs or has ended without another word about the migration."""
    return guest in _ENDED or (guest is GuestState.RUNNING and part is MigrationState.NONE)


def _after_abort(view: View, entry: Entry[Migration], now: datetime.datetime) -> Step | None:
    record = entry.value
    phase = Phase.CANCELLED if record.cancelled else Phase.FAILED
    withdrawn = _state_of(view, record, Role.TARGET) is MigrationState.WITHDRAWN
    lost = _is_over_there(view, record.target, record.target_incarnation)
    if withdrawn or lost or _has_nothing(view, record):
        return _end(entry, phase, record.reason, now)
    if passed_s(record.since, now) >= SETTLE_S:
        # Without the lock its copy never runs, so nothing hangs on its answer.
        return _end(entry, phase, f"{record.reason}; {record.target} has not said that its copy is gone", now)
    return None


def _has_nothing(view: View, record: Migration) -> bool:
    """The target has answered "gone" to a document that was written after the abort began."""
    place = (record.target, record.vm_id)
    document, report = view.wanted_vms.get(place), view.seen_vms.get(place)
    if document is None or report is None or report.value.state is not GuestState.GONE:
        return False
    part = document.value.migration
    told = document.value.gone or (part is not None and part.phase is Phase.ABORTING)
    return told and report.value.wanted_revision >= document.mod_revision


def _end(entry: Entry[Migration], phase: Phase, reason: str, now: datetime.datetime) -> Step:
    return _step(entry, replace(entry.value, phase=phase, reason=reason), now)


def _forget(view: View, entry: Entry[Migration], now: datetime.datetime) -> Step | None:
    """An old record goes, and with it the request that it answers, which else would look like a new one."""
    record = entry.value
    if passed_s(record.since, now) < KEEP_S:
        return None
    request = view.migration_requests.get(record.vm_id)
    if request is not None and not record.answers(request.value):
        return None
    key = keys.spec("migration", record.vm_id)
    compares = (
        unchanged(entry.key, entry.mod_revision),
        unchanged(key, request.mod_revision if request else 0),
    )
    return Step(record.vm_id, None, compares, (Delete(key),))
