"""Life signs and run locks, in the words of docs/failover.md: who is alive, who may write a volume."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LifeSign:
    """The value of ``alive/<host>`` (on the host's lease) and ``registered/<host>`` (on none)."""

    host_id: str
    incarnation: str
    since: str


@dataclass(frozen=True, slots=True)
class RunLock:
    """Who may open a volume for writing: this host's guard incarnation, for this placement generation."""

    vm_id: str
    host_id: str
    incarnation: str
    generation: int
