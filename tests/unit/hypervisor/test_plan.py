"""Every rule of plan_vm, one at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.hypervisor.wishes import VM_ID, at, wanted
from ucloud.hypervisor.actions import (
    CancelStop,
    Collect,
    Guest,
    Kill,
    ObservedVm,
    Plan,
    PowerDown,
    Quit,
    Remove,
    Resume,
    Start,
)
from ucloud.hypervisor.changes import record_action, record_halt, record_start
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.plan import plan_vm
from ucloud.hypervisor.record import End, VmRecord
from ucloud.model.seen import GuestState
from ucloud.model.vm import Failover, Power, Restart

RECORD = VmRecord(VM_ID, generation=1, boots=1)
PROCESS = VmProcess(VM_ID, 1, 1, "inc", Failover.RESTART, 4711, True, "2026-01-31T12:00:00.000Z")


def absent(**record: Any) -> ObservedVm:
    return ObservedVm(VM_ID, replace(RECORD, **record), has_files=True)


def running(guest: Guest = Guest.RUNNING, *, process: VmProcess = PROCESS, **record: Any) -> ObservedVm:
    return ObservedVm(VM_ID, replace(RECORD, **record), True, process, guest)


def ended(**changes: Any) -> ObservedVm:
    return ObservedVm(VM_ID, RECORD, True, replace(PROCESS, running=False, **changes))


def test_a_new_vm_is_started() -> None:
    observed = ObservedVm(VM_ID, VmRecord(VM_ID))
    assert plan_vm(wanted(), observed, at(0)) == Plan(GuestState.STARTING, Start(1))


def test_what_runs_as_wanted_is_left_alone() -> None:
    assert plan_vm(wanted(), running(), at(0)) == Plan(GuestState.RUNNING)


@pytest.mark.parametrize(
    "wish",
    [{"gone": True, "keep_disk": True}, {"power": Power.STOPPED}, {"boots": 2}, {"generation": 2}],
    ids=["gone elsewhere", "stopped", "reboot", "placed anew"],
)
def test_a_wish_to_end_presses_the_power_button(wish: dict[str, Any]) -> None:
    plan = plan_vm(wanted(**wish), running(), at(0))
    assert plan.action == PowerDown(60)
    assert plan.state is GuestState.STOPPING
    assert plan.reason


def test_a_deleted_vm_has_no_grace_for_its_disk_goes_too() -> None:
    plan = plan_vm(wanted(gone=True), running(), at(0))
    assert plan.action == Kill(PROCESS.generation, PROCESS.boots)


def test_a_stop_waits_until_its_deadline_and_shows_it() -> None:
    observed = running(stop_at_s=1060.0, stop_until="later", asked_at_s=1000.0)
    plan = plan_vm(wanted(power=Power.STOPPED), observed, at(2))
    assert (plan.action, plan.until, plan.wake_at_s) == (None, "later", 1003.0)


def test_the_power_button_is_pressed_again() -> None:
    observed = running(stop_at_s=1060.0, asked_at_s=1000.0)
    assert plan_vm(wanted(power=Power.STOPPED), observed, at(3)).action == PowerDown(60)


@pytest.mark.parametrize("guest", [Guest.RUNNING, Guest.SILENT, Guest.PAUSED, Guest.IO_ERROR])
def test_past_its_deadline_a_guest_is_killed_by_its_exact_name(guest: Guest) -> None:
    observed = running(guest, process=replace(PROCESS, generation=1, boots=3), stop_at_s=1060.0, asked_at_s=1055.0)
    assert plan_vm(wanted(boots=4), observed, at(60)).action == Kill(1, 3)


@pytest.mark.parametrize(
    ("guest", "record", "end"),
    [
        (Guest.POWERED_OFF, {}, End.POWERED_OFF),
        (Guest.POWERED_OFF, {"stop_at_s": 1060.0}, End.STOPPED),
        (Guest.CRASHED, {}, End.CRASHED),
        (Guest.CRASHED, {"stop_at_s": 1060.0}, End.CRASHED),
    ],
)
@pytest.mark.parametrize("wish", [{}, {"power": Power.STOPPED}])
def test_a_guest_that_ended_lets_qemu_quit(
    guest: Guest, record: dict[str, Any], end: End, wish: dict[str, Any]
) -> None:
    action = plan_vm(wanted(**wish), running(guest, **record), at(0)).action
    assert isinstance(action, Quit)
    assert action.end is end


def test_a_qemu_that_does_not_quit_is_killed() -> None:
    observed = running(Guest.POWERED_OFF, end=End.POWERED_OFF, ended_at_s=1000.0)
    assert isinstance(plan_vm(wanted(), observed, at(9)).action, Quit)
    assert plan_vm(wanted(), observed, at(10)).action == Kill(1, 1)


def test_a_full_disk_pauses_and_is_tried_again_from_time_to_time() -> None:
    assert plan_vm(wanted(), running(Guest.IO_ERROR), at(0)).action == Resume()
    waiting = plan_vm(wanted(), running(Guest.IO_ERROR, resumed_at_s=1000.0), at(5))
    assert (waiting.state, waiting.action, waiting.wake_at_s) == (GuestState.PAUSED, None, 1010.0)
    assert plan_vm(wanted(), running(Guest.IO_ERROR, resumed_at_s=1000.0), at(10)).action == Resume()


def test_a_stop_that_is_wanted_no_more_is_forgotten_after_its_deadline() -> None:
    assert plan_vm(wanted(), running(stop_at_s=1060.0, asked_at_s=1000.0), at(5)).action is None
    assert plan_vm(wanted(), running(stop_at_s=1060.0, asked_at_s=1000.0), at(60)).action == CancelStop()


@pytest.mark.parametrize(
    ("observed", "end"),
    [
        (ended(exit_code=1, stderr_tail="qemu: bad\n"), End.CRASHED),
        (ended(signal=11), End.CRASHED),
        (ended(exit_code=0), End.CRASHED),
        (ended(lost=True), End.LOST),
        (replace(ended(signal=9), record=replace(RECORD, stop_at_s=1060.0)), End.STOPPED),
        (replace(ended(exit_code=0), record=replace(RECORD, end=End.POWERED_OFF)), End.POWERED_OFF),
    ],
)
@pytest.mark.parametrize("wish", [None, wanted(), wanted(gone=True), wanted(power=Power.STOPPED)])
def test_an_ended_process_is_collected_whatever_is_wanted(observed: ObservedVm, end: End, wish: Any) -> None:
    action = plan_vm(wish, observed, at(0)).action
    assert isinstance(action, Collect)
    assert action.end is end


def test_the_last_words_of_qemu_are_the_reason() -> None:
    observed = ended(exit_code=1, stderr_tail="first\nqemu: no such device\n")
    assert plan_vm(wanted(), observed, at(0)).reason == "QEMU ended with exit code 1: qemu: no such device"


@pytest.mark.parametrize(
    ("restart", "end", "starts"),
    [
        (Restart.ALWAYS, End.POWERED_OFF, True),
        (Restart.ALWAYS, End.CRASHED, True),
        (Restart.ON_FAILURE, End.POWERED_OFF, False),
        (Restart.ON_FAILURE, End.CRASHED, True),
        (Restart.NEVER, End.POWERED_OFF, False),
        (Restart.NEVER, End.CRASHED, False),
    ],
)
def test_the_restart_policy(restart: Restart, end: End, *, starts: bool) -> None:
    plan = plan_vm(wanted(restart=restart), absent(end=end, ended_at_s=1000.0), at(0))
    assert plan.action == (Start(1, again=True) if starts else None)
    if not starts:
        assert plan.state is (GuestState.CRASHED if end is End.CRASHED else GuestState.STOPPED)


@pytest.mark.parametrize("end", [End.NONE, End.LOST, End.STOPPED])
@pytest.mark.parametrize("restart", list(Restart))
def test_what_did_not_end_by_itself_is_started_whatever_the_policy(end: End, restart: Restart) -> None:
    assert plan_vm(wanted(restart=restart), absent(end=end), at(0)).action == Start(1)


@pytest.mark.parametrize(
    ("restarted_at_s", "start_at_s"),
    [
        ((), 2000.0),
        ((1999.0,), 2002.0),
        ((1990.0, 1999.0), 2004.0),
        ((1980.0, 1990.0, 1999.0), 2580.0),
        ((1000.0, 1300.0, 1399.0), 2000.0),
    ],
)
def test_restarts_come_slower_and_slower(restarted_at_s: tuple[float, ...], start_at_s: float) -> None:
    observed = absent(end=End.CRASHED, ended_at_s=2000.0, restarted_at_s=restarted_at_s)
    assert plan_vm(wanted(), observed, at(start_at_s - 1000)).action == Start(1, again=True)
    if start_at_s > 2000.0:
        waiting = plan_vm(wanted(), observed, at(start_at_s - 1000.5))
        assert (waiting.action, waiting.wake_at_s) == (None, start_at_s)
        assert waiting.until
        assert "restarted" in waiting.reason


def test_a_new_boot_ends_the_waiting() -> None:
    observed = absent(end=End.CRASHED, ended_at_s=2000.0, restarted_at_s=(1980.0, 1990.0, 1999.0))
    assert plan_vm(wanted(boots=2), observed, at(1001)).action == Start(2)


def test_a_tombstone_removes_the_files_then_nothing() -> None:
    assert plan_vm(wanted(gone=True), absent(), at(0)).action == Remove()
    clean = ObservedVm(VM_ID, VmRecord(VM_ID))
    assert plan_vm(wanted(gone=True), clean, at(0)) == Plan(GuestState.GONE)


@pytest.mark.parametrize("wish", [None, wanted(), wanted(gone=True), wanted(power=Power.STOPPED), wanted(boots=9)])
@pytest.mark.parametrize("observed", [absent(), running(), ended()])
def test_what_is_unknown_is_left_alone(wish: Any, observed: ObservedVm) -> None:
    plan = plan_vm(wish, replace(observed, unknown="the guard is away"), at(9999))
    assert plan == Plan(GuestState.UNKNOWN, reason="the guard is away")


@pytest.mark.parametrize("observed", [running(), running(Guest.POWERED_OFF), running(stop_at_s=1.0), absent()])
def test_no_document_is_no_wish(observed: ObservedVm) -> None:
    assert plan_vm(None, observed, at(9999)).action is None


@pytest.mark.parametrize("stale", [{"generation": 1, "gone": True}, {"generation": 2, "boots": 2, "gone": True}])
def test_an_older_document_ends_nothing(stale: dict[str, Any]) -> None:
    newer = replace(PROCESS, generation=2, boots=3)
    assert plan_vm(wanted(**stale), running(process=newer, generation=2, boots=3), at(0)).action is None


@pytest.mark.parametrize("stale", [{"generation": 1, "gone": True}, {"generation": 1}, {"generation": 2, "boots": 2}])
def test_an_older_document_starts_and_removes_nothing(stale: dict[str, Any]) -> None:
    assert plan_vm(wanted(**stale), absent(generation=2, boots=3), at(0)).action is None


def test_a_silent_guest_keeps_running() -> None:
    plan = plan_vm(wanted(), running(Guest.SILENT), at(0))
    assert (plan.state, plan.action) == (GuestState.RUNNING, None)
    assert plan.reason


def test_a_process_that_its_lock_does_not_name_is_killed_and_may_start_anew() -> None:
    """Rule D of failover: nobody runs without the lock, whatever is wanted of it."""
    why = "the lock is another generation's"
    observed = replace(running(), disowned=why)
    plan = plan_vm(wanted(), observed, at(0))
    assert plan == Plan(GuestState.STOPPING, Kill(1, 1, End.LOST, why), why)
    assert plan.action is not None
    assert record_action(RECORD, plan.action, at(0)).end is End.LOST
    assert plan_vm(None, observed, at(0)).action == plan.action


def test_what_has_ended_is_collected_whoever_owned_it() -> None:
    assert isinstance(plan_vm(wanted(), replace(ended(exit_code=0), disowned="lost"), at(0)).action, Collect)


def test_a_noted_stop_of_the_cloud_stands_when_the_guest_powers_off() -> None:
    record = record_halt(RECORD, 30.0, at(0))
    off = ObservedVm(VM_ID, record, True, PROCESS, Guest.POWERED_OFF)
    plan = plan_vm(wanted(restart=Restart.NEVER), off, at(1))
    assert isinstance(plan.action, Quit)
    record = record_action(record, plan.action, at(1))
    assert record.end is End.LOST
    gone = ObservedVm(VM_ID, record, True, replace(PROCESS, running=False, exit_code=0))
    collect = plan_vm(wanted(restart=Restart.NEVER), gone, at(2)).action
    assert isinstance(collect, Collect)
    assert collect.end is End.LOST
    absent_again = ObservedVm(VM_ID, record, True)
    assert plan_vm(wanted(restart=Restart.NEVER), absent_again, at(3)).action == Start(1)


def locked_out(**changes: Any) -> ObservedVm:
    said = 'qemu-system-x86_64: -blockdev {…}: Failed to get "write" lock\nIs another process using the image?\n'
    return ended(**{"exit_code": 1, "stderr_tail": said, **changes})


def test_a_start_that_finds_its_disk_locked_is_no_crash() -> None:
    plan = plan_vm(wanted(), locked_out(), at(0))
    assert plan.action == Collect(End.LOCKED, "waits for the disk's lock")
    assert plan.state is GuestState.PREPARING
    crash = plan_vm(wanted(), locked_out(exit_code=-1, signal=6), at(0))
    assert crash.state is GuestState.CRASHED, "words alone are no proof that it never ran"


def test_a_locked_disk_is_tried_again_every_second_whatever_the_restart_policy() -> None:
    for restart in Restart:
        waits = absent(end=End.LOCKED, end_detail="waits for the disk's lock", ended_at_s=1000.0)
        early, late = (plan_vm(wanted(restart=restart), waits, at(seconds)) for seconds in (0.5, 1.0))
        assert (early.action, early.state, early.wake_at_s) == (None, GuestState.PREPARING, 1001.0)
        assert late.action == Start(1, waited=True)


def test_waiting_for_a_disk_keeps_the_count_of_restarts() -> None:
    record = replace(RECORD, restarts=2, restarted_at_s=(900.0, 950.0), end=End.LOCKED)
    again = record_start(record, wanted(), Start(1, waited=True), at(0), accelerator="tcg")
    assert (again.restarts, again.restarted_at_s, again.end) == (2, (900.0, 950.0), End.NONE)


@pytest.mark.parametrize("wish", [{}, {"power": Power.STOPPED}, {"boots": 2}, {"gone": True, "keep_disk": True}])
def test_what_the_guard_froze_waits_for_it(wish: dict[str, Any]) -> None:
    plan = plan_vm(wanted(**wish), running(Guest.SILENT, process=replace(PROCESS, frozen=True)), at(0))
    assert (plan.action, plan.state) == (None, GuestState.PAUSED)
    assert "guard" in plan.reason


def test_a_deleted_vm_goes_even_while_frozen() -> None:
    plan = plan_vm(wanted(gone=True), running(Guest.SILENT, process=replace(PROCESS, frozen=True)), at(0))
    assert isinstance(plan.action, Kill)
