"""The history of one schedule: what happened in it, on top of the state at its beginning. Pure.

The state is given as facts of the moment of the cut: what the store held and which processes there were. So a lab's
history may grow for ever, and each check sees only its own part. Facts of the state are marked ``carried``: they are
nobody's act in this part, but what follows is compared with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ucloud.lab.check_processes import Process, read_processes
from ucloud.lab.violations import Event

_FOREVER_S = float("inf")


def state_after(history: Iterable[Event], at_s: float) -> list[Event]:
    """What a history ends with, as facts of the moment ``at_s``."""
    events = sorted(history, key=lambda event: float(event["at_s"]))
    marks = {"at_s": at_s, "carried": True}
    stored = [{**event, **marks} for event in stored_after(events).values()]
    lives: list[Event] = []
    for process in living(events):
        runs = not process.waits - {"frozen"}
        lives.append({**process.start, **marks, "mode": "run" if runs else "incoming"})
        named = {name: process.start[name] for name in ("vm", "host", "generation", "incarnation")}
        lives.append({**named, **marks, "source": "state", "kind": "vm_born", "pid": process.pid})
        if "frozen" in process.waits:
            lives.append({**named, **marks, "source": "state", "kind": "vm_freeze"})
    return [*stored, *lives]


def stored_after(events: Sequence[Event]) -> dict[str, Event]:
    """The newest value of each key that is there, by key."""
    held: dict[str, Event] = {}
    changes = (event for event in events if event["kind"] in ("store_put", "store_delete"))
    for event in sorted(changes, key=lambda event: int(event["revision"])):
        if event["kind"] == "store_put":
            held[str(event["key"])] = event
        else:
            held.pop(str(event["key"]), None)
    return held


def living(events: Sequence[Event]) -> list[Process]:
    return [process for process in read_processes(events)[0] if process.ended_s == _FOREVER_S and process.pid]


def dropped_after(events: Iterable[Event], before: dict[str, int]) -> dict[str, int]:
    """How many facts each source had to leave out since it began, by source."""
    found = dict(before)
    for event in events:
        if "dropped" in event:
            found[str(event.get("source", ""))] = int(event["dropped"])
    return found


def without_dropped_before(events: Iterable[Event], before: dict[str, int]) -> list[Event]:
    """The events, counting only what was left out since: sources count from their own beginning."""
    base, told = dict(before), []
    for event in events:
        source, dropped = str(event.get("source", "")), int(event.get("dropped", 0))
        if dropped < base.get(source, 0):
            base[source] = 0  # a new process
        told.append({**event, "dropped": dropped - base.get(source, 0)} if dropped else event)
    return told


def end_of(at_s: float) -> dict[str, Any]:
    return {"at_s": at_s, "source": "chaos", "kind": "history_end"}
