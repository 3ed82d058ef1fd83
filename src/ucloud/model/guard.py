"""Life signs, run locks and takeovers, in the words of docs/failover.md: who is alive, who may write a volume."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.vm import Failover


@dataclass(frozen=True, slots=True)
class LifeSign:
    """The value of ``alive/<host>`` (on the host's lease) and ``registered/<host>`` (on none).

    ``fence_s`` (F) and ``kill_s`` (K) are the guard's own promise: without evidence for F it kills what may be started
    elsewhere, and that takes at most K. A takeover waits by what the host promised. F = 0: it never fences.
    """

    host_id: str
    incarnation: str
    since: str
    fence_s: float = 0.0
    kill_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunLock:
    """Who may open a volume for writing: this host's guard incarnation, for this placement generation.

    ``failover`` is what the process was born with: only a lock that says "restart" may be taken over.
    """

    vm_id: str
    host_id: str
    incarnation: str
    generation: int
    failover: Failover = Failover.NONE
    pool_id: str = ""


@dataclass(frozen=True, slots=True)
class Fenced:
    """The mark of a takeover: this incarnation may never take a lock again, and kills all that may move."""

    host_id: str
    incarnation: str
    at: str
    reason: str = ""


class TakeoverPhase(StrEnum):
    """``held``: the brake is on, or the host never fences; ``waiting``: W runs; ``fenced``: the mark is written, and
    it is made sure that the host knows or is silent; ``done``: its locks are free and its VMs may be placed anew.
    """

    HELD = "held"
    WAITING = "waiting"
    FENCED = "fenced"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Takeover:
    """What is being done about a host whose life sign is gone: for people, for the brake, and for the next scheduler.

    Safety rests on none of it but ``done``. ``lost_at`` is when the life sign was first missed.
    """

    host_id: str
    incarnation: str
    phase: TakeoverPhase
    reason: str
    lost_at: str
    since: str
    until: str = ""


@dataclass(frozen=True, slots=True)
class Voter:
    """A voting etcd member and the door (URL) of the keeper on its machine. Ids are etcd's, in decimal."""

    name: str
    member_id: str
    door: str


@dataclass(frozen=True, slots=True)
class Members:
    """Who must say "no leader" before a guard believes it. An added member is published before it is added and after
    every guard has confirmed ``version``; a removed one is taken out after its removal.
    """

    cluster_id: str
    version: int
    voters: tuple[Voter, ...]
