"""Reads the history of a run and says which promises of docs/failover.md it broke. Pure.

Must hold: a history with gaps is never taken for a good one: what cannot be concluded is said as ``incomplete``.
"""

from __future__ import annotations

from collections.abc import Iterable

from ucloud.lab.check_processes import check_processes
from ucloud.lab.check_store import check_store
from ucloud.lab.check_telling import check_telling
from ucloud.lab.check_writes import check_writes
from ucloud.lab.violations import Event, Violation, ViolationKind

__all__ = ["Event", "Violation", "ViolationKind", "check_history"]


def check_history(events: Iterable[Event]) -> list[Violation]:
    """All that is wrong with a history, in the order of time. An empty list is the proof."""
    history = sorted(events, key=lambda event: float(event["at_s"]))
    found = [*check_processes(history), *check_store(history), *check_writes(history), *check_telling(history)]
    return sorted(found, key=lambda violation: violation.at_s)
