"""The stored decision about a VM."""

from __future__ import annotations

from ucloud.api.schemas.fields import Shown


class RefusalShown(Shown):
    host_id: str
    rule: str
    reason: str


class ScoreShown(Shown):
    host_id: str
    total: float
    parts: dict[str, float]


class DecisionShown(Shown):
    revision: int
    considered: int
    refused: dict[str, int]
    examples: list[RefusalShown]
    scores: list[ScoreShown]
    reason: str


class PlacementShown(Shown):
    vm_id: str
    host_id: str
    generation: int
    at: str
    spec_generation: int
    cpus: int
    memory_mib: int
    disk_gib: int
    decision: DecisionShown
    pool_id: str
    failovers: list[str]
