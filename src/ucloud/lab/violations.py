"""What a history of a run is made of, and what can be wrong with it: values only.

A history is what ``system.history`` tells and a recorder adds: facts with one clock (``at_s``) for all who told them.
``vm_running`` (of the process of ``pid``) is only told by those who ask QEMU.
A recorder adds: ``pid_exit`` (pid), ``store_put`` and ``store_delete`` (key, revision, and of the value ``host``,
``incarnation``, ``generation``; first all that is there, then every change), ``host_frozen`` and ``host_thawed``,
``guard_frozen`` and ``guard_thawed``, ``host_off`` (host: all its processes are gone), ``pool_fenced`` (host,
incarnation: it can write no disk any more), ``write_acked`` and ``write_found`` (id), ``storage_write`` (volume, host,
incarnation, first_s, last_s), ``evidence`` (host, sent_s), ``store_restored``, and ``history_end`` as the last.
Facts of the state with which a part of a longer history begins are ``carried``: nobody's act, only compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Event = Mapping[str, Any]


class ViolationKind(StrEnum):
    """``incomplete`` is no broken promise, but no proof either."""

    OVERLAP = "overlap"
    RUNS_WITHOUT_LOCK = "runs_without_lock"
    LOCK_SHARED = "lock_shared"
    LOCK_NOT_PLACED = "lock_not_placed"
    LOCK_NOT_ALIVE = "lock_not_alive"
    LOCK_OF_FENCED = "lock_of_fenced"
    GENERATION_FELL = "generation_fell"
    WRITE_OVERLAP = "write_overlap"
    WRITE_AFTER_FENCE = "write_after_fence"
    LOST_WRITE = "lost_write"
    FALSE_FENCE = "false_fence"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True)
class Violation:
    """``events`` are those that show it."""

    kind: ViolationKind
    text: str
    at_s: float
    events: tuple[Event, ...] = ()

    def __str__(self) -> str:
        return f"{self.at_s:.3f} {self.kind}: {self.text}"
