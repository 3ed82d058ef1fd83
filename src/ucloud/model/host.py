"""A machine that runs VMs, as its operator wants it. What it has and how it does is in ``seen``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.meta import Meta


class Drain(StrEnum):
    """``move``: its VMs go elsewhere, those that cannot stay; ``stop``: those are stopped until it is over."""

    NONE = "none"
    MOVE = "move"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """An unschedulable host keeps its VMs and gets no new ones.

    ``confirmed_off`` is the guard incarnation of which an operator said that its machine is off: then neither the brake
    nor a host that never fences holds its takeover, and VMs that only it could run may be given up. The word is of
    ``confirmed_revision`` of its registration: a host that registers again, as the same incarnation or not, was on.
    """

    schedulable: bool = True
    drain: Drain = Drain.NONE
    confirmed_off: str = ""
    confirmed_revision: int = 0


@dataclass(frozen=True, slots=True)
class Host:
    meta: Meta
    spec: HostSpec
