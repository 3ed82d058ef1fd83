"""Where the scheduler put a VM, and why. Kept small (≤ 4 KiB stored): counts, 20 examples, five scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one host cannot take the VM: the rule, and the numbers in words."""

    host_id: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Score:
    """A candidate's weighted sum (0…1, more is better) and its parts by name."""

    host_id: str
    total: float
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Decision:
    """``revision`` is the snapshot's; ``refused`` counts hosts by rule, all hosts considered."""

    revision: int
    considered: int
    refused: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[Refusal, ...] = ()
    scores: tuple[Score, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """``host_id`` is "" for a VM that fits nowhere. ``generation`` grows with each change of host, never shrinks.

    ``spec_generation`` is the VM's spec that was decided on; ``cpus``, ``memory_mib`` and ``disk_gib`` are what this
    placement takes of the host. ``pool_id`` is where its disk is: "" until a host has said which pool it has.
    ``failovers`` are the times of its latest takeovers: a VM that kills its hosts is waited with.
    """

    vm_id: str
    host_id: str
    generation: int
    spec_generation: int
    cpus: int
    memory_mib: int
    disk_gib: int
    at: str
    decision: Decision
    pool_id: str = ""
    failovers: tuple[str, ...] = ()
