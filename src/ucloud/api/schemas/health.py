"""Bodies of health and version."""

from __future__ import annotations

from ucloud.api.schemas.fields import Shown


class PartShown(Shown):
    ok: bool
    reason: str


class CachePart(PartShown):
    age_s: float


class HostsPart(PartShown):
    alive: int


class PartsShown(Shown):
    store: PartShown
    cache: CachePart
    scheduler: PartShown
    hosts: HostsPart


class HealthShown(Shown):
    word: str
    parts: PartsShown


class VersionShown(Shown):
    version: str
    api: str
