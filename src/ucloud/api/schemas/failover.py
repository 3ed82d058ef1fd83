"""Bodies about hosts that were lost."""

from __future__ import annotations

from ucloud.api.schemas.fields import Shown
from ucloud.model.guard import TakeoverPhase


class TakeoverShown(Shown):
    host_id: str
    incarnation: str
    phase: TakeoverPhase
    reason: str
    lost_at: str
    since: str
    until: str


class LostHostShown(Shown):
    """``takeover`` is null until the scheduler has seen the loss. ``vms`` are those that are still placed there."""

    host_id: str
    name: str
    incarnation: str
    fence_s: float
    confirmed_off: bool
    vms: list[str]
    takeover: TakeoverShown | None


class BrakeShown(Shown):
    """More than ``limit`` hosts lost within ``window_s``: then takeovers wait for somebody's word, or until later."""

    on: bool
    window_s: int
    limit: int
    lost_in_window: int
    hosts: int
    share_percent: int


class FailoverShown(Shown):
    word: str
    brake: BrakeShown
    lost: list[LostHostShown]
    revision: int
