"""What to do next with one VM: a pure function of what is wanted, what was observed, and the time.

A plan has at most one action; after it the VM is observed and planned anew, so that every plan stands on what is and
not on what should have happened. Must hold (law 5): a guest is ended only for a wish that names a newer boot or
generation, a power of ``stopped`` or a tombstone, or because it ended by itself; what could not be observed is left
alone; an older document than the one that was worked on does nothing.
"""

from __future__ import annotations

from ucloud.hypervisor.actions import (
    CancelStop,
    Collect,
    Guest,
    Kill,
    Now,
    ObservedVm,
    Plan,
    PowerDown,
    Quit,
    Remove,
    Resume,
    Start,
)
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.record import RESTART_WINDOW_S, RESTARTS_IN_WINDOW, End, VmRecord
from ucloud.model.seen import GuestState
from ucloud.model.vm import Power, Restart
from ucloud.model.wanted import WantedVm

ASK_AGAIN_S = 3.0  # guests miss the power button while they boot
RESUME_AGAIN_S = 10.0
QUIT_S = 10.0
LOCKED_AGAIN_S = 1.0
FROZEN = "held by the guard: it has no evidence that this host may go on"
_WORDS_LIMIT = 200
_LOCKED = "waits for the disk's lock"
# What QEMU says, and ends, when its disk is open for writing elsewhere: of an image file, and of an NBD service.
_LOCKED_WORDS = ('Failed to get "write" lock', 'Failed to get shared "write" lock', "is locked by", "volume_locked")


def plan_vm(wanted: WantedVm | None, observed: ObservedVm, now: Now) -> Plan:
    """``wanted`` None means that no document was found, which is no wish at all."""
    if observed.unknown:
        return Plan(GuestState.UNKNOWN, reason=observed.unknown)
    process = observed.process
    if process is None:
        return _plan_absent(wanted, observed, now)
    if not process.running:
        return _plan_ended(process, observed.record)
    if observed.disowned:
        kill = Kill(process.generation, process.boots, End.LOST, observed.disowned)
        return Plan(GuestState.STOPPING, kill, observed.disowned)
    if process.frozen and not (wanted and wanted.gone and not wanted.keep_disk):
        return Plan(GuestState.PAUSED, reason=FROZEN)
    if wanted is None:
        return Plan(state_of(observed), reason="no document wants this VM; left alone")
    if (wanted.generation, wanted.boots) < (process.generation, process.boots):
        return Plan(state_of(observed), reason="the document is older than what runs; left alone")
    why = _why_stop(wanted, process)
    return _plan_stopping(wanted, observed, process, now, why) if why else _plan_running(observed, process, now)


def _why_stop(wanted: WantedVm, process: VmProcess) -> str:
    if wanted.gone:
        return "it is being deleted"
    if wanted.power is Power.STOPPED:
        return "it shall be stopped"
    if wanted.generation > process.generation:
        return "it was placed anew"
    if wanted.boots > process.boots:
        return "it shall be booted again"
    return ""


def _plan_running(observed: ObservedVm, process: VmProcess, now: Now) -> Plan:
    """It runs and shall run: act only on what the guest did."""
    end = own_end(observed.guest, observed.record)
    if end:
        return _plan_quit(end, observed.record, process, now)
    if observed.guest is Guest.IO_ERROR:
        again_s = observed.record.resumed_at_s + RESUME_AGAIN_S
        reason = "paused by QEMU: its storage failed or is full"
        if observed.record.resumed_at_s and now.monotonic_s < again_s:
            return Plan(GuestState.PAUSED, None, reason, now.text(again_s), again_s)
        return Plan(GuestState.PAUSED, Resume(), reason)
    if observed.record.stop_at_s and now.monotonic_s >= observed.record.stop_at_s:
        return Plan(state_of(observed), CancelStop())
    reason = "QEMU does not answer" if observed.guest is Guest.SILENT else ""
    return Plan(state_of(observed), reason=reason)


def _plan_stopping(wanted: WantedVm, observed: ObservedVm, process: VmProcess, now: Now, why: str) -> Plan:
    """It runs and shall not: the power button, again from time to time, and at the deadline SIGKILL."""
    record = observed.record
    end = own_end(observed.guest, observed.record)
    if end:
        return _plan_quit(end, record, process, now)
    if wanted.gone and not wanted.keep_disk:  # nothing of it will be left to flush
        return Plan(GuestState.STOPPING, Kill(process.generation, process.boots), why)
    if not record.stop_at_s:
        return Plan(GuestState.STOPPING, PowerDown(wanted.stop_timeout_s), why)
    if now.monotonic_s >= record.stop_at_s:
        return Plan(
            GuestState.STOPPING, Kill(process.generation, process.boots), f"{why}, and did not power off in time"
        )
    again_s = record.asked_at_s + ASK_AGAIN_S
    if now.monotonic_s >= again_s:
        return Plan(GuestState.STOPPING, PowerDown(wanted.stop_timeout_s), why, record.stop_until)
    return Plan(GuestState.STOPPING, None, why, record.stop_until, min(again_s, record.stop_at_s))


def own_end(guest: Guest, record: VmRecord) -> tuple[End, str] | None:
    """How the guest ended although QEMU still runs, None if it did not."""
    if guest is Guest.CRASHED:
        return End.CRASHED, "the guest's kernel panicked, or its processor could not go on"
    if guest is Guest.POWERED_OFF:
        asked = record.stop_at_s > 0
        return (End.STOPPED, "powered off as asked") if asked else (End.POWERED_OFF, "the guest powered itself off")
    return None


def _plan_quit(end: tuple[End, str], record: VmRecord, process: VmProcess, now: Now) -> Plan:
    """The guest has ended: let QEMU go, and if it does not within QUIT_S, end it."""
    state = GuestState.CRASHED if end[0] is End.CRASHED else GuestState.STOPPING
    if record.end is not End.NONE and now.monotonic_s >= record.ended_at_s + QUIT_S:
        return Plan(state, Kill(process.generation, process.boots), f"{end[1]}, and QEMU does not quit")
    return Plan(state, Quit(*end), end[1])


def _plan_ended(process: VmProcess, record: VmRecord) -> Plan:
    """QEMU is gone: note why. What was noted before it ended (a quit, a kill) stands."""
    if record.end is not End.NONE:
        end, detail = record.end, record.end_detail
    elif process.lost:
        end, detail = End.LOST, "it ended with the guard or the host"
    elif record.incoming:
        end, detail = End.LOST, f"its copy was given up: {_describe_exit(process)}"
    elif _found_disk_locked(process):
        return Plan(GuestState.PREPARING, Collect(End.LOCKED, _LOCKED), _LOCKED)
    elif record.stop_at_s:
        end, detail = End.STOPPED, "QEMU ended while the guest was being stopped"
    else:
        end, detail = End.CRASHED, _describe_exit(process)
    state = GuestState.CRASHED if end is End.CRASHED else GuestState.STOPPED
    return Plan(state, Collect(end, detail), detail)


def _found_disk_locked(process: VmProcess) -> bool:
    """Whether it never ran: QEMU exits with 1 before its guest's first instruction."""
    return process.exit_code == 1 and any(word in process.stderr_tail for word in _LOCKED_WORDS)


def _describe_exit(process: VmProcess) -> str:
    how = f"signal {process.signal}" if process.signal else f"exit code {process.exit_code}"
    words = "".join(process.stderr_tail.strip().splitlines()[-1:])
    if len(words) > _WORDS_LIMIT:  # QEMU repeats the whole option first, the cause comes last
        words = f"…{words[-_WORDS_LIMIT:]}"
    return f"QEMU ended with {how}" + (f": {words}" if words else "")


def _plan_absent(wanted: WantedVm | None, observed: ObservedVm, now: Now) -> Plan:
    """Nothing runs."""
    record = observed.record
    if wanted is None:
        return Plan(_ended_state(record), reason="no document wants this VM; left alone")
    if wanted.generation < record.generation:
        return Plan(_ended_state(record), reason="the document is older than what ran; left alone")
    if wanted.gone:
        return Plan(GuestState.GONE, Remove() if observed.has_files else None)
    if wanted.power is Power.STOPPED:
        return Plan(GuestState.STOPPED, reason=record.end_detail)
    if wanted.generation > record.generation or wanted.boots > record.boots:
        return Plan(GuestState.STARTING, Start(wanted.boots))
    if wanted.boots < record.boots:
        return Plan(_ended_state(record), reason="the document is older than what ran; left alone")
    return _plan_by_policy(wanted, record, now)


def _plan_by_policy(wanted: WantedVm, record: VmRecord, now: Now) -> Plan:
    """The wanted boot ran and ended. Only what the guest did by itself is the policy's business."""
    if record.end in (End.NONE, End.STOPPED, End.LOST):
        return Plan(GuestState.STARTING, Start(wanted.boots))
    if record.end is End.LOCKED:
        again_s = record.ended_at_s + LOCKED_AGAIN_S
        if now.monotonic_s < again_s:
            return Plan(GuestState.PREPARING, None, record.end_detail, wake_at_s=again_s)
        return Plan(GuestState.PREPARING, Start(wanted.boots, waited=True), record.end_detail)
    crashed = record.end is End.CRASHED
    if wanted.restart is Restart.NEVER or (wanted.restart is Restart.ON_FAILURE and not crashed):
        return Plan(_ended_state(record), reason=record.end_detail)
    start_at_s = _restart_at_s(record)
    if now.monotonic_s < start_at_s:
        reason = f"{record.end_detail}; restarted {len(record.restarted_at_s)} times lately, waiting"
        return Plan(_ended_state(record), None, reason, now.text(start_at_s), start_at_s)
    return Plan(GuestState.STARTING, Start(wanted.boots, again=True), record.end_detail)


def _restart_at_s(record: VmRecord) -> float:
    """When a guest that ended by itself may run again: at once, after 2 s, after 4 s, then only 3 in 10 minutes."""
    recent = [at_s for at_s in record.restarted_at_s if at_s > record.ended_at_s - RESTART_WINDOW_S]
    if len(recent) >= RESTARTS_IN_WINDOW:
        return recent[-RESTARTS_IN_WINDOW] + RESTART_WINDOW_S
    return record.ended_at_s + (2.0 ** len(recent) if recent else 0.0)


def _ended_state(record: VmRecord) -> GuestState:
    return GuestState.CRASHED if record.end is End.CRASHED else GuestState.STOPPED


def state_of(observed: ObservedVm) -> GuestState:
    """The state of one that has a process."""
    if observed.guest is Guest.INCOMING:
        return GuestState.PREPARING
    paused = observed.guest in (Guest.PAUSED, Guest.IO_ERROR, Guest.SENT)
    return GuestState.PAUSED if paused else GuestState.RUNNING
