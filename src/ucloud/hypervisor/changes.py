"""How each action changes a VM's record. Pure: the real and the fake hypervisor do the same."""

from __future__ import annotations

from dataclasses import replace

from ucloud.hypervisor.actions import (
    Action,
    Arrived,
    CancelStop,
    Collect,
    Kill,
    Listen,
    Now,
    PowerDown,
    Quit,
    Resume,
    Send,
    Start,
)
from ucloud.hypervisor.record import RESTARTS_IN_WINDOW, End, VmRecord
from ucloud.model.wanted import WantedVm
from ucloud.system.clock import format_time


def record_start(record: VmRecord, wanted: WantedVm, action: Start, now: Now, *, accelerator: str) -> VmRecord:
    """Written before the start: a start that did not happen then looks like a lost one, and is repeated.

    One that waited for the disk is the same start as before, and counts once.
    """
    restarts = record.restarts if action.waited else record.restarts + 1 if action.again else 0
    restarted = record.restarted_at_s if action.waited else ()
    if action.again:
        restarted = (*record.restarted_at_s, now.monotonic_s)[-RESTARTS_IN_WINDOW:]
    return VmRecord(
        vm_id=record.vm_id,
        host_boot_id=record.host_boot_id,
        generation=wanted.generation,
        spec_generation=wanted.spec_generation,
        boots=action.boots,
        restarts=restarts,
        restarted_at_s=restarted,
        started_at=format_time(now.wall),
        cpus=wanted.cpus,
        memory_mib=wanted.memory_mib,
        disk_gib=wanted.disk_gib,
        accelerator=accelerator,
    )


def record_listen(record: VmRecord, wanted: WantedVm, action: Listen, now: Now, *, accelerator: str) -> VmRecord:
    """Written before the start of a QEMU that waits for its guest: what is of that name has not run."""
    started = record_start(record, wanted, Start(action.boots), now, accelerator=accelerator)
    return replace(started, migration_id=action.migration_id, incoming=True)


def record_action(record: VmRecord, action: Action, now: Now) -> VmRecord:
    """The record as it is written before ``action`` is done."""
    match action:
        case PowerDown(timeout_s=timeout_s):
            return _record_power_down(record, timeout_s, now)
        case Kill(end=end, detail=detail) | Quit(end=end, detail=detail) | Collect(end=end, detail=detail):
            return _record_end(record, end, detail, now)
        case CancelStop():
            return _record_no_stop(record)
        case Resume():
            return replace(record, resumed_at_s=now.monotonic_s)
        case Send(migration_id=migration_id):
            return replace(record, migration_id=migration_id)
        case Arrived():
            return replace(record, incoming=False)
    return record


def record_halt(record: VmRecord, timeout_s: float, now: Now) -> VmRecord:
    """Written before the whole cloud of this host is stopped, which is no wish for this VM: it shall run again.

    The deadline makes the next agent forget all this, if the stop was interrupted and the guest went on.
    """
    ended = _record_end(record, End.LOST, "the cloud on this host was stopped", now)
    return ended if record.stop_at_s else _record_power_down(ended, timeout_s, now)


def _record_no_stop(record: VmRecord) -> VmRecord:
    """The guest runs on: neither the deadline nor the end that was noted ahead of it are true."""
    return replace(
        record,
        stop_at_s=0.0,
        stop_until="",
        asked_at_s=0.0,
        end=End.NONE,
        end_detail="",
        ended_at="",
        ended_at_s=0.0,
    )


def _record_power_down(record: VmRecord, timeout_s: float, now: Now) -> VmRecord:
    """The deadline is set once; asking again does not move it."""
    if record.stop_at_s:
        return replace(record, asked_at_s=now.monotonic_s)
    stop_at_s = now.monotonic_s + timeout_s
    return replace(record, stop_at_s=stop_at_s, stop_until=now.text(stop_at_s), asked_at_s=now.monotonic_s)


def _record_end(record: VmRecord, end: End, detail: str, now: Now) -> VmRecord:
    """The first word on how a run ended stands: it was known best by then."""
    if record.end is not End.NONE:
        return record
    return replace(record, end=end, end_detail=detail, ended_at=format_time(now.wall), ended_at_s=now.monotonic_s)
