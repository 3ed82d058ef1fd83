"""What the guard concludes and does about its life sign, decided purely from what it saw. (docs/failover.md, A and B.)

*Evidence* lets what may be started elsewhere (the mortals) run until its deadline, which is F after it was **sent**.
Evidence (a) is a linearizable read that shows this incarnation in ``alive/<host>``; evidence (b) is a round in which
every voter's keeper says that it has no leader. Must hold: no answer revives a deadline that has passed; after that
only evidence (a) counts again, if it was sent once everything mortal was dead or stood still.
All times are of CLOCK_BOOTTIME.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ucloud.model.guard import Members
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover

_ASK_KEEPERS_AFTER = 1 / 3  # of F


class AliveKey(StrEnum):
    """What a read of our ``alive`` key showed."""

    OURS = "ours"
    LOST = "lost"
    FOREIGN = "foreign"


class Step(StrEnum):
    """What to do about the life sign."""

    RENEW = "renew"
    REGISTER = "register"
    YIELD = "yield"  # fenced or replaced: start nothing more


class Action(StrEnum):
    """What to do about the mortals."""

    NOTHING = "nothing"
    FENCE = "fence"  # end or freeze them, each as its pool needs it; call ``closed`` once that is done
    THAW = "thaw"  # let the frozen ones go on
    END = "end"  # end them all, then this guard


class Hold(StrEnum):
    """How the mortals stand: ``open``: they run until the deadline; ``closing``: it has passed, they must stop;
    ``closed``: none runs. A guard begins closed.
    """

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Fate(StrEnum):
    """What one process meets."""

    NOTHING = "nothing"
    KILL = "kill"
    FREEZE = "freeze"
    THAW = "thaw"


class LeaderState(StrEnum):
    """What a keeper says of its etcd member."""

    LEADER = "leader"
    NO_LEADER = "no_leader"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class KeeperAnswer:
    """Ids are etcd's, in decimal."""

    cluster_id: str
    member_id: str
    state: LeaderState


@dataclass(frozen=True, slots=True)
class LifeState:
    """All the guard knows of its life. ``evidence_at_s``, ``seen_at_s`` (the newest read) and ``registered_at_s`` are 0
    for never. ``members`` is the list that the newest evidence (a) came with. ``fence_s`` 0 means: never fence.
    """

    fence_s: float = 0.0
    hold: Hold = Hold.CLOSED
    closed_at_s: float = 0.0
    evidence_at_s: float = 0.0
    seen_at_s: float = 0.0
    registered_at_s: float = 0.0
    alive: bool = False
    fenced: bool = False
    replaced: bool = False
    longest_gap_s: float = 0.0
    members: Members | None = None

    @property
    def deadline_s(self) -> float:
        """When the mortals must stop, if nothing more is learnt; infinite for a guard that never fences."""
        return _end_s(self, self.evidence_at_s)

    @property
    def members_version(self) -> int:
        return self.members.version if self.members else 0

    @property
    def is_over(self) -> bool:
        """Whether another guard or a takeover has ended this incarnation."""
        return self.fenced or self.replaced

    def evidence_age_s(self, now_s: float) -> float:
        """Seconds since the last evidence was sent; −1 if there never was any."""
        return now_s - self.evidence_at_s if self.evidence_at_s else -1.0


def see(
    state: LifeState, key: AliveKey, *, fenced: bool, sent_at_s: float, now_s: float, members: Members | None = None
) -> LifeState:
    """The state after the answer, come at ``now_s``, to a linearizable read sent at ``sent_at_s``.

    Answers may come in any order. One that is older than the registration says nothing about a successor.
    """
    state = pass_time(state, now_s)
    after_registration = 0.0 < state.registered_at_s <= sent_at_s
    state = replace(
        state,
        fenced=state.fenced or fenced,
        replaced=state.replaced or (key is AliveKey.FOREIGN and after_registration),
    )
    is_newest = sent_at_s >= state.seen_at_s
    if is_newest:
        state = replace(state, seen_at_s=sent_at_s, alive=key is AliveKey.OURS and not state.is_over)
    if key is not AliveKey.OURS or state.is_over:
        return state
    if is_newest:
        state = replace(state, members=members, registered_at_s=state.registered_at_s or now_s)
    if state.hold is Hold.CLOSED and not state.closed_at_s < sent_at_s <= now_s < _end_s(state, sent_at_s):
        return state
    return _extend(state, sent_at_s)


def registered(state: LifeState, now_s: float) -> LifeState:
    """The state after the answer that our registration was committed."""
    return replace(state, registered_at_s=state.registered_at_s or now_s)


def see_round(
    state: LifeState, members: Members, answers: Mapping[str, KeeperAnswer], *, started_at_s: float, now_s: float
) -> LifeState:
    """The state after a round of questions to the keepers of ``members``; ``answers`` are by member id.

    Unlike a read it never lets stopped mortals go on: it may have come after a takeover.
    """
    state = pass_time(state, now_s)
    if state.is_over or state.members != members or not round_is_evidence(members, answers):
        return state
    return state if state.hold is Hold.CLOSED else _extend(state, started_at_s)


def round_is_evidence(members: Members, answers: Mapping[str, KeeperAnswer]) -> bool:
    """Whether every voter said by its own ids that it has no leader. Silence is no answer; a majority is not enough."""
    return bool(members.voters) and all(
        answer is not None
        and (answer.cluster_id, answer.member_id) == (members.cluster_id, voter.member_id)
        and answer.state in (LeaderState.NO_LEADER, LeaderState.STOPPED)
        for voter, answer in ((voter, answers.get(voter.member_id)) for voter in members.voters)
    )


def wants_round(state: LifeState, now_s: float) -> bool:
    """Whether it is time to ask the keepers: reads have been without evidence for a while, but not for too long."""
    if state.members is None or not state.fence_s or state.is_over or state.hold is not Hold.OPEN:
        return False
    return state.evidence_at_s + state.fence_s * _ASK_KEEPERS_AFTER <= now_s < state.deadline_s


def pass_time(state: LifeState, now_s: float) -> LifeState:
    """The state at ``now_s`` if nothing was learnt. A deadline that has passed stays so, whatever comes later."""
    if state.hold is Hold.OPEN and now_s >= state.deadline_s:
        return replace(state, hold=Hold.CLOSING)
    return state


def closed(state: LifeState, now_s: float) -> LifeState:
    """The state once everything mortal is dead or stands still, seen at ``now_s``."""
    return replace(state, hold=Hold.CLOSED, closed_at_s=now_s)


def next_action(state: LifeState, now_s: float, *, frozen: bool = False) -> Action:
    """What to do about the mortals now; ``frozen``: some of them are. Depends on nothing that is not in ``state``."""
    if state.is_over:
        return Action.END
    match pass_time(state, now_s).hold:
        case Hold.CLOSING:
            return Action.FENCE
        case Hold.OPEN if frozen:
            return Action.THAW
    return Action.NOTHING


def next_step(state: LifeState, key: AliveKey) -> Step:
    """Whoever lost only its lease registers again and kills nothing; who is fenced or replaced does not."""
    if state.is_over:
        return Step.YIELD
    return Step.RENEW if key is AliveKey.OURS else Step.REGISTER


def fate(action: Action, failover: Failover, pool_fence: Fence, *, frozen: bool = False) -> Fate:
    """What ``action`` means for one process. One that may not be started elsewhere is never touched."""
    if failover is not Failover.RESTART or action is Action.NOTHING:
        return Fate.NOTHING
    if action is Action.END:
        return Fate.KILL
    if action is Action.THAW:
        return Fate.THAW if frozen else Fate.NOTHING
    return Fate.FREEZE if pool_fence is Fence.VERB else Fate.KILL


def refusal(state: LifeState, now_s: float, *, sealed: bool, own: str, asked: str) -> str:
    """Why nothing may be started or resumed now, as an error code; "" if it may.

    ``own`` is this guard's incarnation, ``asked`` the one that the caller holds the run lock for.
    """
    if asked != own or state.replaced:
        return "guard_replaced"
    if state.fenced:
        return "guard_fenced"
    if sealed:
        return "guard_sealed"
    if state.fence_s and pass_time(state, now_s).hold is not Hold.OPEN:
        return "no_evidence"
    return ""


def _end_s(state: LifeState, sent_at_s: float) -> float:
    return sent_at_s + state.fence_s if state.fence_s else math.inf


def _extend(state: LifeState, sent_at_s: float) -> LifeState:
    """Count evidence, unless its deadline has passed already or there is newer."""
    if state.hold is Hold.CLOSING or sent_at_s <= state.evidence_at_s:
        return state
    gap_s = sent_at_s - state.evidence_at_s if state.evidence_at_s else 0.0
    return replace(state, hold=Hold.OPEN, evidence_at_s=sent_at_s, longest_gap_s=max(state.longest_gap_s, gap_s))
