"""When each VM ran where, and whether that was ever twice at a time. Pure.

A process runs from ``vm_start`` (mode "run") or ``vm_resume`` until ``vm_paused``, ``vm_exit`` or ``pid_exit``, without
the time between ``vm_freeze`` and ``vm_thaw`` or in which its whole host was frozen. Starts are told before and ends
after they happen, so that an interval is never told too short. A process that was never born, or ended by itself with
code 1, never let its guest run: so QEMU ends when another one has the lock of its disk. ``vm_running`` says that a
guest runs by then: behind a frozen host or guard it is the disk's lock that decides when it may begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ucloud.lab.violations import Event, Violation, ViolationKind

_FOREVER_S = float("inf")


@dataclass(slots=True)
class Run:
    """An interval in which a process ran."""

    process: Process
    start_s: float
    end_s: float = _FOREVER_S


@dataclass(slots=True)
class Process:
    """A QEMU from its start to its end. ``waits`` are the reasons why it does not run although it lives.

    ``killed_s`` is when it was first told to end, ``disturbed_s`` when its host or guard was first frozen,
    ``running_s`` when its guest was known to run: its birth, in a history that tells no more.
    """

    start: Event
    waits: set[str] = field(default_factory=set)
    runs: list[Run] = field(default_factory=list)
    pid: int = 0
    born_s: float = _FOREVER_S
    running_s: float = _FOREVER_S
    ended_s: float = _FOREVER_S
    sure: bool = True
    killed_s: float = _FOREVER_S
    disturbed_s: float = _FOREVER_S

    @property
    def vm(self) -> str:
        return str(self.start["vm"])

    @property
    def host(self) -> str:
        return str(self.start["host"])

    @property
    def incarnation(self) -> str:
        return str(self.start["incarnation"])

    @property
    def name(self) -> str:
        return f"{self.vm} generation {self.start['generation']} on {self.host}"

    def go(self, at_s: float) -> None:
        if not self.waits and (not self.runs or self.runs[-1].end_s < _FOREVER_S):
            self.runs.append(Run(self, at_s))

    def halt(self, at_s: float) -> None:
        if self.runs:
            self.runs[-1].end_s = min(self.runs[-1].end_s, at_s)

    def wait_for(self, reason: str, at_s: float) -> None:
        self.waits.add(reason)
        self.halt(at_s)

    def wait_over(self, reason: str, at_s: float) -> None:
        self.waits.discard(reason)
        self.go(at_s)


_WAITS = {"vm_paused": "standing still", "vm_freeze": "frozen"}
_GOES = {"vm_resume": "standing still", "vm_thaw": "frozen"}
_HOST_WAITS = {"host_frozen": "host frozen"}
_HOST_GOES = {"host_thawed": "host frozen"}
_DISTURBS = ("host_frozen", "guard_frozen")
_LATE = ("vm_kill", "vm_exit", "vm_running")  # may be told after pid_exit
_OF_A_PROCESS = {*_WAITS, *_GOES, *_LATE, "vm_born"}


def host_of(event: Event) -> str:
    """Of a fact that does not name its host: who told it, such as ``guard/h1``."""
    return str(event.get("host", "")) or str(event.get("source", "")).partition("/")[2]


class _Reader:
    """Follows the processes through a history."""

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self.open: dict[tuple[str, str], Process] = {}
        self.latest: dict[tuple[str, str], Process] = {}
        self.found: list[Violation] = []

    def read(self, event: Event) -> None:
        kind, at_s = event["kind"], float(event["at_s"])
        if kind == "vm_start":
            self._start(event, at_s)
        elif kind in _OF_A_PROCESS:
            self._happen(event, at_s)
        elif kind == "pid_exit":
            for process in [one for one in self.open.values() if one.pid == event["pid"]]:
                self._end(process, at_s)
        elif kind == "registered":
            self._replaced(event, at_s)
        elif "host" in event:
            self._of_host(event, at_s)

    def _start(self, event: Event, at_s: float) -> None:
        process = Process(event)
        before = self.open.get((process.host, process.vm))
        if before is not None:
            text = f"{process.name} was started while {before.name} was there"
            self.found.append(Violation(ViolationKind.OVERLAP, text, at_s, (before.start, event)))
        self.processes.append(process)
        self.open[process.host, process.vm] = self.latest[process.host, process.vm] = process
        if event.get("mode", "run") == "run":
            process.go(at_s)
        else:
            process.waits.add("standing still")

    def _happen(self, event: Event, at_s: float) -> None:
        place = (host_of(event), str(event["vm"]))
        process = self.open.get(place)
        if event["kind"] == "vm_exit" and place in self.latest:
            self._forget_if_never_ran(self.latest[place], event)
        if process is None:
            if event["kind"] not in _LATE:
                text = f"{event['kind']} of {event['vm']} on {place[0]}, whose start nobody told"
                self.found.append(Violation(ViolationKind.INCOMPLETE, text, at_s, (event,)))
            return
        match event["kind"]:
            case "vm_born":
                process.pid = int(event["pid"])
                process.born_s = at_s
            case "vm_running":
                if process.pid == int(event["pid"]):
                    process.running_s = min(process.running_s, at_s)
            case "vm_kill":
                process.killed_s = min(process.killed_s, at_s)
            case "vm_exit":
                self._end(process, at_s)
            case kind if kind in _WAITS:
                process.wait_for(_WAITS[kind], at_s)
            case kind:
                process.wait_over(_GOES[kind], at_s)

    def _forget_if_never_ran(self, process: Process, event: Event) -> None:
        """The exit may be told after the recorder has seen it."""
        of_process = event.get("generation", process.start["generation"]) == process.start["generation"]
        failed = event.get("exit_code") == 1 and not event.get("signal")
        if of_process and (event.get("born") is False or failed):
            process.runs.clear()

    def _of_host(self, event: Event, at_s: float) -> None:
        kind = event["kind"]
        for process in [one for one in self.open.values() if one.host == event["host"]]:
            if kind in _DISTURBS:
                process.disturbed_s = min(process.disturbed_s, at_s)
            if kind == "host_off":
                self._end(process, at_s)
            elif kind in _HOST_WAITS:
                process.wait_for(_HOST_WAITS[kind], at_s)
            elif kind in _HOST_GOES:
                process.wait_over(_HOST_GOES[kind], at_s)

    def _replaced(self, event: Event, at_s: float) -> None:
        """A new guard registers only when all of the old one's is reaped. What was never born is gone by then."""
        for process in [one for one in self.open.values() if one.host == event["host"]]:
            if process.incarnation != event["incarnation"] and not process.pid:
                process.sure = False
                self._end(process, at_s)

    def _end(self, process: Process, at_s: float) -> None:
        process.halt(at_s)
        process.ended_s = at_s
        del self.open[process.host, process.vm]


def read_processes(history: Sequence[Event]) -> tuple[list[Process], list[Violation]]:
    """All processes of a history that is sorted by time, and what was wrong with the telling of it."""
    reader = _Reader()
    for event in history:
        reader.read(event)
    if not any(event["kind"] == "vm_running" for event in history):
        for process in reader.processes:
            process.running_s = process.born_s if process.pid else float(process.start["at_s"])
    return reader.processes, reader.found


def check_processes(history: Sequence[Event]) -> Iterator[Violation]:
    processes, found = read_processes(history)
    yield from found
    by_vm: dict[str, list[Process]] = {}
    for process in processes:
        by_vm.setdefault(process.vm, []).append(process)
    fenced_s = {
        (str(event["host"]), str(event["incarnation"])): float(event["at_s"])
        for event in history
        if event["kind"] == "pool_fenced"
    }
    for of_vm in by_vm.values():
        runs = sorted((run for process in of_vm for run in process.runs), key=lambda run: run.start_s)
        yield from _overlaps(runs, fenced_s)
        yield from _generations(runs)


def _overlaps(runs: list[Run], fenced_s: dict[tuple[str, str], float]) -> Iterator[Violation]:
    longest: Run | None = None
    for run in runs:
        if longest is not None and run.process is not longest.process and run.start_s < longest.end_s:
            yield from _overlap(longest, run, fenced_s)
        if longest is None or run.end_s > longest.end_s:
            longest = run


def _overlap(first: Run, second: Run, fenced_s: dict[tuple[str, str], float]) -> Iterator[Violation]:
    events = (first.process.start, second.process.start)
    if _cut_off(first, second.start_s, fenced_s) or _cut_off(second, second.start_s, fenced_s):
        return
    if _kept_out_by_disk(first, second) or _kept_out_by_disk(second, first):
        return
    over_s = min(first.end_s, second.end_s) - second.start_s
    text = f"{first.process.name} and {second.process.name} ran at a time, for {over_s:.3f} s"
    if first.process.sure and second.process.sure:
        yield Violation(ViolationKind.OVERLAP, text, second.start_s, events)
    else:
        text = f"nobody told whether {first.process.name} was ever born, or its end: {text}"
        yield Violation(ViolationKind.INCOMPLETE, text, second.start_s, events)


def _cut_off(run: Run, at_s: float, fenced_s: dict[tuple[str, str], float]) -> bool:
    """Frozen, or killed without ending: then the second line holds, if the pool's verb was used before (rule C)."""
    process = run.process
    at_least = fenced_s.get((process.host, process.incarnation), _FOREVER_S)
    return min(process.disturbed_s, process.killed_s) <= at_s and at_least <= at_s


def _kept_out_by_disk(old: Run, new: Run) -> bool:
    """Behind a frozen guard the lock of the disk decides: the new guest may run once the old process has ended."""
    is_start = new is new.process.runs[0]
    return is_start and old.process.disturbed_s <= new.start_s and old.end_s <= new.process.running_s


def _generations(runs: list[Run]) -> Iterator[Violation]:
    """What goes on after its host was frozen was not started: if that was wrong, it is an overlap."""
    for before, after in pairwise(runs):
        if after.process.disturbed_s <= after.start_s and after is not after.process.runs[0]:
            continue
        if int(after.process.start["generation"]) < int(before.process.start["generation"]):
            text = f"{after.process.name} ran after {before.process.name}"
            events = (before.process.start, after.process.start)
            yield Violation(ViolationKind.GENERATION_FELL, text, after.start_s, events)
