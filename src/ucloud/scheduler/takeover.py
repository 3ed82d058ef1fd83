"""What to do about a host whose life sign is gone: rules A5 and F of docs/failover.md, pure, with times passed in.

Owns nothing: ``control/takeover.py`` reads, waits and writes as these functions say, and simulations do the same.
Must hold: a host's locks are freed only after its mark was *seen*, in an answer of the same raft term as one that
had shown its life sign gone (or its mark there), asked at least W after that one had come, ``registered`` unchanged.
All seconds are of one monotonic clock; wall-clock times are for people and for the brake.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ucloud.model.guard import LifeSign, Takeover, TakeoverPhase
from ucloud.model.seen import Fence, SeenPool
from ucloud.store.view import Entry, View
from ucloud.system.clock import format_time

ROUND_S = 0.25  # r: one question round of a guard, docs/failover.md
BRAKE_WINDOW_S = 600.0
POLL_S = 0.5  # how often it is asked while waiting: a new raft term starts the wait again, the sooner the better


@dataclass(frozen=True, slots=True)
class LostHost:
    """A host that registered, gives no life sign, and is not taken over yet.

    ``registered_revision`` is that of ``registered/<host>``, ``fenced_revision`` that of the mark (0: none yet).
    ``record`` is what is stored about this incarnation, ``record_revision`` the revision of whatever is stored.
    """

    host_id: str
    incarnation: str
    registered_revision: int
    fence_s: float
    kill_s: float
    confirmed_off: bool = False
    fenced_revision: int = 0
    record: Takeover | None = None
    record_revision: int = 0

    @property
    def wait_s(self) -> float:
        """W, by what this host's own guard has promised."""
        return self.fence_s + self.kill_s + ROUND_S


@dataclass(frozen=True, slots=True)
class Answer:
    """What a linearizable read of ``alive``, ``registered`` and the mark said, or the answer to writing the mark."""

    sent_at_s: float
    answered_at_s: float
    term: int
    alive: bool
    registered_revision: int
    fenced: bool


@dataclass(frozen=True, slots=True)
class Quiet:
    """A quiet period: since ``since_s`` (an answer's arrival) one raft term, and no registration.

    ``over`` only if an answer of this term, asked at least W after its start, showed the mark.
    """

    since_s: float
    term: int
    registered_revision: int
    heard_at_s: float
    over: bool = False


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a takeover may not begin, and until when; ``until`` "" needs somebody's word."""

    reason: str
    until: str = ""


class Step(StrEnum):
    """``hold``: nothing, until the brake is off. ``read``: ask, and ``hear`` the answer. ``wait``: until ``at_s``.
    ``mark``: write the mark if the life sign is absent and ``registered`` unchanged, and ``hear`` the answer.
    ``free``: fence the pools, then delete the locks and write that it is done.
    """

    HOLD = "hold"
    READ = "read"
    WAIT = "wait"
    MARK = "mark"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class Next:
    """``at_s`` is when to look again, for ``wait`` only."""

    step: Step
    phase: TakeoverPhase
    reason: str
    at_s: float = 0.0
    until: str = ""


def lost_hosts(view: View) -> tuple[LostHost, ...]:
    """All hosts about which something is to be done, by id. One that is being removed is among them, but none that was
    removed and has registered since: nothing of it is known but its name.
    """
    known = view.hosts.keys() | {host_id for host_id, _ in view.locks}
    return tuple(
        _lost_host(view, host_id, view.registered[host_id])
        for host_id in sorted(view.registered)
        if host_id not in view.alive and host_id in known and view.taken_over(host_id) is None
    )


def _lost_host(view: View, host_id: str, registered: Entry[LifeSign]) -> LostHost:
    sign = registered.value
    mark = view.fenced.get((host_id, sign.incarnation))
    record = view.takeovers.get(host_id)
    known = record is not None and record.value.incarnation == sign.incarnation
    return LostHost(
        host_id=host_id,
        incarnation=sign.incarnation,
        registered_revision=registered.mod_revision,
        fence_s=sign.fence_s,
        kill_s=sign.kill_s,
        confirmed_off=view.is_confirmed_off(host_id),
        fenced_revision=mark.mod_revision if mark else 0,
        record=record.value if record and known else None,
        record_revision=record.mod_revision if record else 0,
    )


def losses(view: View, lost: Iterable[LostHost], now: datetime.datetime) -> Mapping[str, datetime.datetime]:
    """When each host was lost, of those that were in the brake's window: what is recorded, and what is seen now."""
    times = {host_id: _time_of(entry.value.lost_at, now) for host_id, entry in view.takeovers.items()}
    for host in lost:
        if host.record is None:
            times[host.host_id] = now
    window = datetime.timedelta(seconds=BRAKE_WINDOW_S)
    return {host_id: at for host_id, at in times.items() if now - at < window}


def brake_limit(hosts: int, share_percent: int) -> int:
    """How many of ``hosts`` may be lost within the window before takeovers need somebody's word."""
    return max(1, hosts * share_percent // 100)


def hold_of(host: LostHost, lost_at: Mapping[str, datetime.datetime], *, limit: int) -> Hold | None:
    """Why this takeover has to wait; None if it may go on. ``lost_at`` is that of ``losses``."""
    if host.confirmed_off or host.fenced_revision:
        return None
    if host.fence_s <= 0:
        return Hold(f"the guard of {host.host_id} never fences: somebody must confirm that the host is off")
    if len(lost_at) <= limit:
        return None
    oldest = sorted(lost_at.values())[len(lost_at) - limit - 1]
    until = oldest + datetime.timedelta(seconds=BRAKE_WINDOW_S)
    reason = f"{len(lost_at)} hosts were lost within {BRAKE_WINDOW_S / 60:g} minutes, more than {limit}"
    return Hold(f"{reason}: somebody must confirm, or it goes on later", format_time(until))


def hear(quiet: Quiet | None, answer: Answer, host: LostHost) -> Quiet | None:
    """The quiet period after an answer; None if the answer shows that there is none: the host is back."""
    if answer.registered_revision != host.registered_revision or answer.alive:
        return None
    began_otherwise = quiet is None or (quiet.term, quiet.registered_revision) != (
        answer.term,
        answer.registered_revision,
    )
    if quiet is None or began_otherwise:
        at_s = answer.answered_at_s
        return Quiet(since_s=at_s, term=answer.term, registered_revision=answer.registered_revision, heard_at_s=at_s)
    long_enough = answer.sent_at_s >= quiet.since_s + host.wait_s
    return replace(quiet, heard_at_s=answer.answered_at_s, over=quiet.over or (answer.fenced and long_enough))


def next_step(host: LostHost, quiet: Quiet | None, hold: Hold | None, *, now_s: float) -> Next:
    """What to do now. ``quiet`` is what ``hear`` made of the answers so far, in this process."""
    if quiet is not None and quiet.registered_revision != host.registered_revision:
        quiet = None
    if quiet is not None and quiet.over:
        return Next(Step.FREE, TakeoverPhase.FENCED, "it is marked as fenced and can run nothing: its locks are freed")
    if hold is not None and not host.fenced_revision:
        return Next(Step.HOLD, TakeoverPhase.HELD, hold.reason, until=hold.until)
    phase = TakeoverPhase.FENCED if host.fenced_revision else TakeoverPhase.WAITING
    if quiet is None:
        return Next(Step.READ, phase, "its life sign is gone: the store is asked")
    reason = _waiting_reason(host, quiet)
    ends_at_s = quiet.since_s + host.wait_s
    if now_s >= ends_at_s:
        return Next(Step.READ if host.fenced_revision else Step.MARK, phase, reason)
    if now_s >= quiet.heard_at_s + POLL_S:
        return Next(Step.READ, phase, reason)
    return Next(Step.WAIT, phase, reason, at_s=min(ends_at_s, quiet.heard_at_s + POLL_S))


def _waiting_reason(host: LostHost, quiet: Quiet) -> str:
    why = "it is marked as fenced, and has" if host.fenced_revision else "its life sign is gone, and it has"
    return f"{why} {host.wait_s:g} s to end what may run elsewhere, in raft term {quiet.term}"


def record_of(host: LostHost, step: Next, quiet: Quiet | None, *, now: datetime.datetime, now_s: float) -> Takeover:
    """What to show; equal to the stored record if there is nothing new to say."""
    before = host.record
    at = format_time(now)
    if before is not None and (before.phase, before.reason) == (step.phase, step.reason):
        return before
    until = step.until
    if quiet is not None and step.step is Step.WAIT:
        until = format_time(now + datetime.timedelta(seconds=quiet.since_s + host.wait_s - now_s))
    return Takeover(
        host_id=host.host_id,
        incarnation=host.incarnation,
        phase=step.phase,
        reason=step.reason,
        lost_at=before.lost_at if before else at,
        since=before.since if before and before.phase is step.phase else at,
        until=until,
    )


def done_record(host: LostHost, freed: int, *, now: datetime.datetime) -> Takeover:
    """The record that lets its VMs be placed anew."""
    at = format_time(now)
    lost_at = host.record.lost_at if host.record else at
    reason = f"{freed} run locks were freed: what may run elsewhere is placed anew"
    return Takeover(host.host_id, host.incarnation, TakeoverPhase.DONE, reason, lost_at, at)


def returned_hosts(view: View) -> tuple[Entry[Takeover], ...]:
    """Takeovers whose host gives a life sign again before they were done: they are over."""
    entries = (entry for host_id, entry in sorted(view.takeovers.items()) if host_id in view.alive)
    return tuple(entry for entry in entries if entry.value.phase is not TakeoverPhase.DONE)


def old_records(view: View, now: datetime.datetime) -> tuple[Entry[Takeover], ...]:
    """Done takeovers of hosts that live again, once the brake needs them no more."""
    window = datetime.timedelta(seconds=BRAKE_WINDOW_S)
    return tuple(
        entry
        for host_id, entry in sorted(view.takeovers.items())
        if entry.value.phase is TakeoverPhase.DONE
        and host_id in view.alive
        and now - _time_of(entry.value.lost_at, now) >= window
    )


def pools_to_fence(view: View, host_id: str, lock_pools: Sequence[str]) -> tuple[str, ...]:
    """The pools that must refuse the host before its locks are freed: its own, and those of its locks, if they have a
    fence verb as any host's report says. Whether it is proved at the moment says nothing about who can write.
    """
    report = view.seen_hosts.get(host_id)
    own = (report.value.pool.id,) if report and report.value.pool else ()
    with_verb = {pool.id for pool in _pools_in(view) if pool.has_verb or pool.fence is Fence.VERB}
    return tuple(sorted({*own, *lock_pools} & with_verb))


def unknown_pools(view: View, lock_pools: Sequence[str]) -> tuple[str, ...]:
    """Pools of locks of which no report tells: they may have a fence verb."""
    return tuple(sorted({pool_id for pool_id in lock_pools if pool_id} - {pool.id for pool in _pools_in(view)}))


def _pools_in(view: View) -> list[SeenPool]:
    return [entry.value.pool for entry in view.seen_hosts.values() if entry.value.pool is not None]


def _time_of(text: str, otherwise: datetime.datetime) -> datetime.datetime:
    """A time that cannot be read counts as now: the brake errs on the side of waiting."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return time if time.tzinfo else otherwise
