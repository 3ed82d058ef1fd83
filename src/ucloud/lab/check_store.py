"""The run locks: exclusive, for the current placement, of the living incarnation, and held by whoever runs. Pure.

The order of what the store did is that of its revisions; when it did it is known from who told it: a lock is held from
the first sign of its making to the first sign of its end, both of which come after the fact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from ucloud.lab.check_processes import Process, read_processes
from ucloud.lab.violations import Event, Violation, ViolationKind
from ucloud.store import keys

_FOREVER_S = float("inf")
_STORE = ("store_put", "store_delete")


@dataclass(slots=True)
class Hold:
    """A run lock from its making to its end."""

    vm: str
    host: str
    incarnation: str
    generation: int
    start_s: float
    end_s: float = _FOREVER_S


def check_store(history: Sequence[Event]) -> Iterator[Violation]:
    changes = sorted((event for event in history if event["kind"] in _STORE), key=lambda event: int(event["revision"]))
    yield from _Follower(history).follow(changes)
    if changes:
        yield from _runs_hold_locks(history, changes)


class _Follower:
    """What the store held after each revision."""

    def __init__(self, history: Sequence[Event]) -> None:
        self._state: dict[str, Event] = {}
        self._locks: dict[str, dict[str, Event]] = {}
        self._generations: dict[str, int] = {}
        self._restored_s = max((float(e["at_s"]) for e in history if e["kind"] == "store_restored"), default=0.0)

    def follow(self, changes: Sequence[Event]) -> Iterator[Violation]:
        for _, group in groupby(changes, key=lambda event: int(event["revision"])):
            together = list(group)
            for event in together:
                self._apply(event)
            for event in together:
                if event["kind"] == "store_put":
                    yield from self._check(event)

    def _apply(self, event: Event) -> None:
        key = str(event["key"])
        if event["kind"] == "store_put":
            self._state[key] = event
        else:
            self._state.pop(key, None)
        if key.startswith(keys.locks()):
            of_vm = self._locks.setdefault(keys.last_segment(key), {})
            if event["kind"] == "store_put":
                of_vm[key] = event
            else:
                of_vm.pop(key, None)

    def _check(self, event: Event) -> Iterator[Violation]:
        key = str(event["key"])
        if event.get("carried") and key.startswith(keys.placements()):
            self._generations[keys.last_segment(key)] = int(event["generation"])
        if event.get("carried") or float(event["at_s"]) == self._restored_s:
            return  # nobody's act
        if key.startswith(keys.locks()):
            yield from self._check_lock(event, keys.last_segment(key))
        elif key.startswith(keys.placements()):
            yield from self._check_generation(event, keys.last_segment(key))

    def _check_lock(self, event: Event, vm: str) -> Iterator[Violation]:
        at_s, host, incarnation = float(event["at_s"]), str(event["host"]), str(event["incarnation"])
        others = [one for one in self._locks[vm].values() if one["host"] != host]
        if others:
            text = f"{vm} is locked by {host} and by {others[0]['host']}"
            yield Violation(ViolationKind.LOCK_SHARED, text, at_s, (others[0], event))
        placement = self._state.get(keys.placement(vm))
        placed = (placement.get("host"), placement.get("generation")) if placement else (None, None)
        if placed != (host, event["generation"]):
            text = f"{host} locked {vm} generation {event['generation']}, which is placed on {placed[0]} as {placed[1]}"
            yield Violation(ViolationKind.LOCK_NOT_PLACED, text, at_s, (event,))
        alive = self._state.get(keys.alive(host))
        if alive is None or alive.get("incarnation") != incarnation:
            text = f"{host} locked {vm} as {incarnation}, which had no life sign"
            yield Violation(ViolationKind.LOCK_NOT_ALIVE, text, at_s, (event,))
        if keys.fenced(host, incarnation) in self._state:
            text = f"{host} locked {vm} as {incarnation}, which was fenced"
            yield Violation(ViolationKind.LOCK_OF_FENCED, text, at_s, (event,))

    def _check_generation(self, event: Event, vm: str) -> Iterator[Violation]:
        """A restored backup may hold lower ones: only what comes after it counts."""
        at_s, generation = float(event["at_s"]), int(event["generation"])
        before = self._generations.get(vm, 0)
        self._generations[vm] = generation
        if generation < before and not 0 < self._restored_s <= at_s:
            text = f"the placement of {vm} fell from generation {before} to {generation}"
            yield Violation(ViolationKind.GENERATION_FELL, text, at_s, (event,))


def _runs_hold_locks(history: Sequence[Event], changes: Sequence[Event]) -> Iterator[Violation]:
    holds = _holds(history, changes)
    restored_s = max((float(event["at_s"]) for event in history if event["kind"] == "store_restored"), default=0.0)
    for process in read_processes(history)[0]:
        of_process = [hold for hold in holds.get(process.vm, []) if _is_of(hold, process)]
        for run in process.runs:
            thawed = process.disturbed_s <= run.start_s and run is not process.runs[0]
            if run.start_s == run.end_s or thawed or run.start_s < restored_s:
                continue
            hold = next((one for one in of_process if one.start_s <= run.start_s < one.end_s), None)
            if hold is None:
                text = f"{process.name} ran without its lock"
                yield Violation(ViolationKind.RUNS_WITHOUT_LOCK, text, run.start_s, (process.start,))
            elif hold.end_s < min(run.end_s, process.disturbed_s, process.killed_s) and process.sure:
                text = f"{process.name} ran on without its lock"
                yield Violation(ViolationKind.RUNS_WITHOUT_LOCK, text, hold.end_s, (process.start,))


def _is_of(hold: Hold, process: Process) -> bool:
    of_process = (process.host, process.incarnation, int(process.start["generation"]))
    return (hold.host, hold.incarnation, hold.generation) == of_process


def _holds(history: Sequence[Event], changes: Sequence[Event]) -> dict[str, list[Hold]]:
    """By VM. A new value under the same key ends the hold of the old one."""
    told = [event for event in history if event["kind"] == "lock_taken"]
    holds: dict[str, list[Hold]] = {}
    held: dict[str, Hold] = {}
    ended_s: dict[str, float] = {}
    for event in changes:
        key = str(event["key"])
        if not key.startswith(keys.locks()):
            continue
        old = held.pop(key, None)
        if old is not None:
            old.end_s = ended_s[key] = float(event["at_s"])
        if event["kind"] == "store_put":
            hold = _hold_of(event, keys.last_segment(key), told, after_s=ended_s.get(key, 0.0))
            held[key] = hold
            holds.setdefault(hold.vm, []).append(hold)
    return holds


def _hold_of(event: Event, vm: str, told: Sequence[Event], *, after_s: float) -> Hold:
    """The holder may know of its lock before the recorder's watch does. ``after_s``: when an earlier one ended."""
    made = (vm, str(event["host"]), str(event["incarnation"]), int(event["generation"]))
    at_s = float(event["at_s"])
    earlier = [
        float(one["at_s"])
        for one in told
        if (one["vm"], one["host"], one["incarnation"], int(one["generation"])) == made and float(one["at_s"]) > after_s
    ]
    return Hold(*made, start_s=min([at_s, *earlier]))
