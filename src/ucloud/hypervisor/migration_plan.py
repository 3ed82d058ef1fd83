"""What to do next with one VM, whether it moves between hosts or not: the decision table of rule E of docs/failover.md.

Pure, and level-triggered: it stands on the wanted document (role and phase), on what was observed, and, where that
decides whether a guest may go on, on the VM's run lock, read after the guest was seen standing still. Nothing is
remembered but the record's ``migration_id`` and ``incoming``. What is not about migrations is ``plan.plan_vm``'s.

Must hold, whatever the agent and QEMU did before:

- A guest that came from elsewhere goes on only with this process's own run lock, which only the move brings here.
- A guest that was sent away whole goes on only with its run lock, and never in the phase ``sending`` of the very
  migration that sent it: there the lock may move at any moment. Nor is it started anew then.
- A copy that has not run, and a guest that was sent away and lost its lock, are ended, never asked to power off.
- What was not observed (``silent``, ``frozen``, a lock that could not be read) is waited for.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from ucloud.hypervisor.actions import (
    Arrived,
    CancelSend,
    Collect,
    Continue,
    Guest,
    Kill,
    Listen,
    Now,
    ObservedVm,
    Plan,
    Remove,
    Send,
)
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.migration_status import MigrationStatus, Transfer
from ucloud.hypervisor.plan import own_end, plan_vm, state_of
from ucloud.hypervisor.record import End
from ucloud.model.migration import ENDS, MigrationState, Phase, Role, SeenMigration, WantedMigration
from ucloud.model.seen import GuestState
from ucloud.model.wanted import WantedVm

PROGRESS_S = 1.0
SOON_S = 0.002  # QEMU stands still, and says a moment later whether that is for good
_COPY_GONE = "its copy was given up"
_MOVED = "it was moved to another host"
_NOT_ITS_LOCK = "its run lock is not this process's"
_BEFORE_MOVE = (Phase.PREPARING, Phase.SENDING)


class LockView(StrEnum):
    """What a linearizable read of the run lock showed, together with the document that was decided on.

    ``own``: it names this process, by generation and incarnation, and the document is the newest; ``other``: it
    does not, or there is none; ``unknown``: it could not be read, or the document has changed; ``unread``: not asked.
    """

    UNREAD = "unread"
    OWN = "own"
    OTHER = "other"
    UNKNOWN = "unknown"


class Standing(StrEnum):
    """What there is of the VM on this host, as far as a migration goes."""

    ABSENT = "absent"
    ENDED = "ended"
    WAITING = "waiting"  # a copy that is not whole
    RECEIVED = "received"  # a whole copy that has not run
    SENT = "sent"  # it ran, was sent away as a whole, and stands still
    SILENT = "silent"
    LIVE = "live"


def standing_of(observed: ObservedVm) -> Standing:
    process, guest = observed.process, observed.guest
    if process is None:
        return Standing.ABSENT
    if not process.running:
        return Standing.ENDED
    if process.frozen or guest in (Guest.SILENT, Guest.NONE):
        return Standing.SILENT
    if guest is Guest.SENT:
        return Standing.SENT
    if guest is Guest.INCOMING:
        return Standing.WAITING
    if not observed.record.incoming or guest is Guest.RUNNING:
        return Standing.LIVE
    return Standing.RECEIVED if observed.migration.transfer is Transfer.COMPLETED else Standing.WAITING


def plan_pass(wanted: WantedVm | None, observed: ObservedVm, now: Now, lock: LockView = LockView.UNREAD) -> Plan:
    """The next action. With ``needs_lock`` in the answer, ask again with the lock as it was read after ``observed``."""
    if observed.unknown or observed.disowned or wanted is None:
        return plan_vm(wanted, observed, now)
    standing = standing_of(observed)
    part = wanted.migration
    if standing is Standing.LIVE and observed.record.incoming:
        return Plan(state_of(observed), Arrived())
    if wanted.gone:
        return _plan_gone(wanted, observed, now, standing)
    if part is None or part.phase in ENDS:
        return _plan_at_home(wanted, observed, now, standing, lock)
    if part.role is Role.TARGET:
        return _plan_target(wanted, part, observed, now, standing, lock)
    return _plan_source(wanted, part, observed, now, standing, lock)


def _plan_gone(wanted: WantedVm, observed: ObservedVm, now: Now, standing: Standing) -> Plan:
    """A tombstone. Neither a copy nor what was sent away has anything to flush."""
    process, record, part = observed.process, observed.record, wanted.migration
    if process and process.running and part and (part.role, part.phase) == (Role.SOURCE, Phase.MOVED):
        return _kill(process, _MOVED)
    if process and process.running and (standing in (Standing.WAITING, Standing.SENT) or _is_copy(observed)):
        return _kill(process, "it is no longer wanted here")
    if process is None and record.incoming:  # whatever its generation, nothing of it ever ran
        return Plan(GuestState.GONE, Remove() if observed.has_files else None)
    return plan_vm(wanted, observed, now)


def _plan_at_home(wanted: WantedVm, observed: ObservedVm, now: Now, standing: Standing, lock: LockView) -> Plan:
    """The VM shall run here, and no migration is under way: whatever one has left behind is settled."""
    process = observed.process
    if _is_sending(observed):
        return Plan(state_of(observed), CancelSend())
    if process is None or standing in (Standing.ENDED, Standing.LIVE):
        return plan_vm(wanted, observed, now)
    if standing is Standing.SILENT:
        return _wait(observed) if observed.record.incoming else plan_vm(wanted, observed, now)
    if standing is Standing.WAITING or process.generation < wanted.generation:
        return _kill(process, _COPY_GONE)
    if process.generation > wanted.generation:
        return Plan(state_of(observed), reason="the document is older than what runs; left alone")
    return _plan_continue(wanted, observed, process, now, lock)


def _plan_continue(wanted: WantedVm, observed: ObservedVm, process: VmProcess, now: Now, lock: LockView) -> Plan:
    """It stands still, and nothing can move its lock any more: whoever has the lock goes on."""
    waiting = Plan(state_of(observed), reason="stands still until its run lock was read", wake_at_s=now.monotonic_s + 1)
    match lock:
        case LockView.UNREAD:
            return replace(waiting, needs_lock=True)
        case LockView.UNKNOWN:
            return waiting
        case LockView.OTHER:
            return _kill(process, _NOT_ITS_LOCK)
    arrived = observed.guest is not Guest.SENT
    if arrived and own_end(observed.guest, observed.record):
        return plan_vm(wanted, observed, now)  # the guest had ended by itself before it came
    go_on = Continue(process.generation, process.boots, arrived=arrived)
    return Plan(GuestState.STARTING if arrived else GuestState.PAUSED, go_on)


# The target


def _plan_target(
    wanted: WantedVm, part: WantedMigration, observed: ObservedVm, now: Now, standing: Standing, lock: LockView
) -> Plan:
    if part.phase is Phase.MOVED:
        return _plan_arrival(wanted, part, observed, now, standing, lock)
    process = observed.process
    if process is not None and not process.running:
        return _collect_copy(observed, process, now, part)
    if part.phase is Phase.ABORTING:
        return _plan_withdrawal(part, observed, standing)
    return _plan_reception(wanted, part, observed, standing)


def _plan_reception(wanted: WantedVm, part: WantedMigration, observed: ObservedVm, standing: Standing) -> Plan:
    """Preparing and sending: have one copy for this migration, and say how far it is."""
    process, record = observed.process, observed.record
    tried = record.incoming and record.migration_id == part.id
    if process is None:
        if tried:
            return _target_plan(part, MigrationState.FAILED, record.end_detail or _COPY_GONE)
        if part.phase is not Phase.PREPARING or record.generation > wanted.generation:
            return _target_plan(part, MigrationState.FAILED, "there is no copy of it on this host")
        return _target_plan(part, MigrationState.NONE, action=Listen(wanted.boots, part.id))
    if standing is Standing.SENT or (_is_copy(observed) and not tried):
        return _kill(process, "it is left from an earlier migration")
    if not record.incoming:
        return replace(
            _target_plan(part, MigrationState.FAILED, "a process of it is on this host already"),
            state=state_of(observed),
        )
    if standing is Standing.RECEIVED:
        return _target_plan(part, MigrationState.RECEIVED)
    reason = "QEMU does not answer" if standing is Standing.SILENT else ""
    return _target_plan(part, MigrationState.LISTENING, reason)


def _plan_withdrawal(part: WantedMigration, observed: ObservedVm, standing: Standing) -> Plan:
    """Aborting: no move can happen any more, so a copy will never run. Saying so is the positive sign."""
    process = observed.process
    if process is None:
        plan = _target_plan(part, MigrationState.WITHDRAWN, "the migration was given up")
        return replace(plan, state=GuestState.STOPPED)
    if standing in (Standing.SENT, Standing.WAITING) or _is_copy(observed):
        return _kill(process, "the migration was given up")
    reason = "it runs here, which an abort does not end"
    return Plan(state_of(observed), reason=reason, migration=_target_seen(part, MigrationState.FAILED, reason))


def _plan_arrival(
    wanted: WantedVm, part: WantedMigration, observed: ObservedVm, now: Now, standing: Standing, lock: LockView
) -> Plan:
    """Moved: lock and placement are here. A copy that is lost by now is started anew, like any VM of this host."""
    process, record = observed.process, observed.record
    if process and process.running and record.incoming and record.migration_id != part.id:
        return _kill(process, "it is left from an earlier migration")
    plan = _plan_at_home(wanted, observed, now, standing, lock)
    waits = standing in (Standing.RECEIVED, Standing.WAITING, Standing.SILENT) and record.incoming
    state = MigrationState.RECEIVED if waits else MigrationState.RESUMED
    reason = "" if standing is Standing.LIVE or waits else "its copy was lost after the move: it is started anew"
    return replace(plan, migration=_target_seen(part, state, reason))


def _collect_copy(observed: ObservedVm, process: VmProcess, now: Now, part: WantedMigration) -> Plan:
    plan = plan_vm(None, observed, now)
    if observed.record.incoming and isinstance(plan.action, Collect):
        detail = observed.record.end_detail or plan.action.detail
        return _target_plan(part, MigrationState.FAILED, detail, action=Collect(End.LOST, detail))
    return plan


def _target_plan(
    part: WantedMigration, state: MigrationState, reason: str = "", *, action: Listen | Collect | None = None
) -> Plan:
    seen = _target_seen(part, state, reason)
    return Plan(GuestState.PREPARING, action, reason or "its guest is on its way to this host", migration=seen)


def _target_seen(part: WantedMigration, state: MigrationState, reason: str = "") -> SeenMigration:
    return SeenMigration(part.id, Role.TARGET, state, reason)


# The source


def _plan_source(
    wanted: WantedVm, part: WantedMigration, observed: ObservedVm, now: Now, standing: Standing, lock: LockView
) -> Plan:
    if part.phase is Phase.MOVED:
        return _plan_departure(wanted, part, observed, now)
    if part.phase is Phase.SENDING:
        return _plan_sending(wanted, part, observed, now, standing, lock)
    plan = _plan_at_home(wanted, observed, now, standing, lock)
    if part.phase is Phase.ABORTING:
        return replace(plan, migration=_source_seen(part, observed, _aborting_state(observed, standing)))
    return replace(plan, migration=_source_seen(part, observed, MigrationState.NONE))


def _aborting_state(observed: ObservedVm, standing: Standing) -> MigrationState:
    if standing is Standing.SENT:
        return MigrationState.COMPLETED
    sends = standing is Standing.SILENT or _is_sending(observed)
    return MigrationState.SENDING if sends else MigrationState.WITHDRAWN


def _plan_sending(
    wanted: WantedVm, part: WantedMigration, observed: ObservedVm, now: Now, standing: Standing, lock: LockView
) -> Plan:
    process, tried = observed.process, observed.record.migration_id == part.id and not observed.record.incoming
    if process is None:  # not started again: the target may be allowed to go on at any moment
        reason = "it ended while it was to be sent"
        return Plan(
            GuestState.STOPPED, reason=reason, migration=_source_seen(part, observed, MigrationState.FAILED, reason)
        )
    if standing is Standing.SENT and tried:
        reason = "it was sent, and stands still"
        completed = _source_seen(part, observed, MigrationState.COMPLETED)
        return Plan(GuestState.PAUSED, reason=reason, migration=completed)
    state, reason = _sending_state(observed, standing, tried=tried)
    if tried and _is_sending(observed):
        plan = plan_vm(wanted, observed, now)
    else:
        plan = _plan_at_home(wanted, observed, now, standing, lock)
    plan = replace(plan, migration=_source_seen(part, observed, state, reason))
    if plan.action is not None or standing is not Standing.LIVE:
        return plan
    if observed.guest is Guest.FINISHING:
        return replace(plan, wake_at_s=now.monotonic_s + SOON_S)
    if not tried and observed.guest is Guest.RUNNING and process.generation == wanted.generation:
        return replace(plan, action=Send(part.id))
    return replace(plan, wake_at_s=now.monotonic_s + PROGRESS_S) if state is MigrationState.SENDING else plan


def _sending_state(observed: ObservedVm, standing: Standing, *, tried: bool) -> tuple[MigrationState, str]:
    if not tried:
        return MigrationState.NONE, ""
    if standing is Standing.SILENT:
        return MigrationState.SENDING, "QEMU does not answer"
    if standing is Standing.LIVE and observed.guest is not Guest.FINISHING:
        match observed.migration.transfer:
            case Transfer.FAILED | Transfer.CANCELLED | Transfer.NONE:
                return MigrationState.FAILED, observed.migration.reason or "the stream ended; it has run here all along"
            case Transfer.COMPLETED:
                return MigrationState.FAILED, "it went on here"
    if standing is Standing.ENDED:
        return MigrationState.FAILED, "it ended while it was to be sent"
    return MigrationState.SENDING, ""


def _plan_departure(wanted: WantedVm, part: WantedMigration, observed: ObservedVm, now: Now) -> Plan:
    """Moved: its lock is the target's. Whatever is left here is ended, and nothing is started."""
    process = observed.process
    seen = _source_seen(part, observed, MigrationState.COMPLETED)
    if process is None:
        return Plan(GuestState.STOPPED, reason=_MOVED, migration=seen)
    if process.running:
        return replace(_kill(process, _MOVED), migration=seen)
    return replace(plan_vm(wanted, observed, now), migration=seen)


def _source_seen(part: WantedMigration, observed: ObservedVm, state: MigrationState, reason: str = "") -> SeenMigration:
    status = observed.migration if observed.record.migration_id == part.id else MigrationStatus()
    return SeenMigration(part.id, Role.SOURCE, state, reason, status.sent_mib, status.total_mib, status.downtime_ms)


# Both


def _is_copy(observed: ObservedVm) -> bool:
    """Whether it has not run yet, as far as is known."""
    return observed.record.incoming and observed.guest is not Guest.RUNNING


def _is_sending(observed: ObservedVm) -> bool:
    process = observed.process
    if process is None or not process.running or observed.record.incoming or observed.guest is Guest.SILENT:
        return False
    return observed.guest is Guest.FINISHING or (
        observed.migration.transfer is Transfer.ACTIVE and observed.guest is not Guest.SENT
    )


def _wait(observed: ObservedVm) -> Plan:
    return Plan(GuestState.PAUSED, reason="QEMU does not answer" if observed.process else "")


def _kill(process: VmProcess, why: str) -> Plan:
    return Plan(GuestState.STOPPING, Kill(process.generation, process.boots, End.LOST, why), why)
