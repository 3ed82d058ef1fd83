"""A machine that runs VMs, as its operator wants it. What it has and how it does is in ``seen``."""

from __future__ import annotations

from dataclasses import dataclass

from ucloud.model.meta import Meta


@dataclass(frozen=True, slots=True)
class HostSpec:
    """An unschedulable host keeps its VMs and gets no new ones."""

    schedulable: bool = True


@dataclass(frozen=True, slots=True)
class Host:
    meta: Meta
    spec: HostSpec
