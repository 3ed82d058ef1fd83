"""One schedule on a lab that lives on: prepare, break, heal, wait until all is well, and check what happened."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos import story
from tests.chaos.deeds import Doer
from tests.chaos.fleet import Fleet
from tests.chaos.schedule import Schedule
from tests.chaos.writer import Writer
from ucloud.client import Client
from ucloud.errors import DeadlineExceeded, Error
from ucloud.lab.checker import check_history
from ucloud.lab.driver import Lab
from ucloud.lab.store_watch import WATCHED
from ucloud.lab.telling import LabHistory, wait_recorded
from ucloud.lab.violations import Event
from ucloud.store.etcd import EtcdStore
from ucloud.system.clock import SystemClock

_SETTLE_S = 120.0
_RECORDED_S = 30.0
_CLOCK = SystemClock()


@dataclass
class Result:
    """A schedule's outcome, as a line of the results. ``wrong`` is empty for a good one."""

    seed: int
    text: str
    vms: int
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0
    settled_s: float = 0.0
    waited_for: str = ""
    facts: dict[str, int] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    writes: int = 0
    unanswered: int = 0
    braked: int = 0
    unfounded_fences: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        verdict = "ok" if not self.wrong else f"WRONG: {self.wrong[0]}"
        counts = " ".join(f"{name}={count}" for name, count in self.facts.items() if count)
        return (
            f"seed {self.seed}: {self.seconds:.0f} s, settled {self.settled_s:.1f} s, {self.vms} VMs, "
            f"{self.writes} writes, {counts} [{self.text}] {verdict}"
        )

    def plain(self) -> dict[str, Any]:
        return asdict(self)


class Stage:
    """The lab and where in its history the next schedule begins."""

    def __init__(self, lab: Lab, kept: Path) -> None:
        self._lab = lab
        self._kept = kept
        self._fleet = Fleet(lab)
        self._offset = 0
        self._state: list[Event] = []
        self._dropped: dict[str, int] = {}

    def play(self, schedule: Schedule) -> Result:
        result = Result(schedule.seed, schedule.text, schedule.restart + schedule.none)
        began_s = time.monotonic()
        try:
            self._play(schedule, result)
        except Error as error:
            result.wrong.append(f"{error.code}: {error.message}")
        result.seconds = round(time.monotonic() - began_s, 1)
        if result.wrong:
            self._keep(schedule, result)
        return result

    def _play(self, schedule: Schedule, result: Result) -> None:
        braked = self._fleet.braked
        doer = Doer(self._lab, self._fleet.prepare(schedule, timeout_s=_SETTLE_S))
        writer = Writer(self._lab, schedule.seed)
        writer.start()
        try:
            doer.play(schedule)
        finally:
            doer.heal()
        healed_s = time.monotonic()
        self._undrain()
        try:
            result.waited_for = self._fleet.settle(timeout_s=_SETTLE_S)
        except DeadlineExceeded as error:
            result.wrong.append(error.message)
        result.settled_s = round(time.monotonic() - healed_s, 1)
        writer.stop()
        result.wrong += [f"the answered write {one} is lost" for one in writer.look()]
        self._check(schedule, result)
        result.wrong += [f"network {one} is there, though it was deleted" for one in writer.clear()]
        result.writes, result.unanswered = len(writer.acked), writer.unanswered
        result.refused = doer.refused
        result.braked = self._fleet.braked - braked

    def _undrain(self) -> None:
        def undrain(client: Client) -> None:
            for host in client.each("host"):
                if host["spec"]["drain"] != "none":
                    client.act(host["id"], "undrain", noun="host")

        self._lab.ask(undrain, timeout_s=10.0, patience_s=60.0)

    def _check(self, schedule: Schedule, result: Result) -> None:
        """What the schedule's part of the history says; then the next part begins here."""
        path = self._lab.layout.history
        events, end = self._recorded(result)
        now_s = _CLOCK.monotonic_s()
        told = story.without_dropped_before(events, self._dropped)
        history = [*self._state, *told, story.end_of(now_s)]
        result.wrong += [str(violation) for violation in check_history(history)]
        result.facts = _count(events)
        result.unfounded_fences = _unfounded(schedule, events)
        self._write_part(path.with_name("part.jsonl"), history)
        self._dropped = story.dropped_after(events, self._dropped)
        self._state = story.state_after([*self._state, *events], now_s)
        self._offset = end

    def _recorded(self, result: Result) -> tuple[list[dict[str, Any]], int]:
        """This part of the history, once it holds all that the store and the machine have."""
        deadline_s = time.monotonic() + _RECORDED_S
        while True:
            wait_recorded(self._lab.layout, LabHistory(self._lab.layout))
            events, end = self._read_part()
            problem = self._untold([*self._state, *events])
            if not problem or time.monotonic() > deadline_s:
                result.wrong += [f"the history is not whole: {problem}"] if problem else []
                return events, end
            time.sleep(0.3)

    def _untold(self, history: list[Event]) -> str:
        held = {key: int(event["revision"]) for key, event in story.stored_after(history).items()}
        there = self._lab.with_store(_revisions)
        wrong = sorted(key for key in held.keys() | there.keys() if held.get(key) != there.get(key))
        if wrong:
            return f"of {len(wrong)} keys it has another revision than the store, such as {wrong[0]}"
        told = {process.pid for process in story.living(sorted(history, key=lambda event: float(event["at_s"])))}
        pids = {pid for places in self._fleet.guests().values() for _, pid in places}
        return f"QEMUs by it are {sorted(told)}, there are {sorted(pids)}" if told != pids else ""

    def _read_part(self) -> tuple[list[dict[str, Any]], int]:
        with self._lab.layout.history.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        return [json.loads(line) for line in whole.splitlines()], self._offset + len(whole)

    def _write_part(self, path: Path, history: list[Event]) -> None:
        path.write_text("".join(json.dumps(event) + "\n" for event in history))

    def _keep(self, schedule: Schedule, result: Result) -> None:
        """The part of the history and all logs, for people."""
        place = self._kept / f"seed-{schedule.seed}-{int(time.time())}"
        place.mkdir(parents=True)
        (place / "result.json").write_text(json.dumps(result.plain(), indent=1))
        part = self._lab.layout.history.with_name("part.jsonl")
        if part.exists():
            shutil.copy(part, place / "history.jsonl")
        else:
            shutil.copy(self._lab.layout.history, place / "history.jsonl")
        for node in self._lab.shape.nodes:
            logs = self._lab.layout.node(node.name).logs
            if logs.is_dir():
                shutil.copytree(logs, place / node.name)


def _revisions(store: EtcdStore) -> dict[str, int]:
    return {item.key: item.mod_revision for prefix in WATCHED for item in store.list(prefix).items}


_COUNTED = {
    "vm_start": "starts",
    "fence": "fences",
    "takeover_done": "takeovers",
    "moved": "moved",
}


def _count(events: list[dict[str, Any]]) -> dict[str, int]:
    found = Counter(_COUNTED[event["kind"]] for event in events if event["kind"] in _COUNTED)
    return {name: found[name] for name in _COUNTED.values()}


_EVERYWHERE = ("blip_all", "stop_etcd", "kill_leader", "freeze_leader")


def _unfounded(schedule: Schedule, events: list[dict[str, Any]]) -> list[str]:
    """Fences of hosts that nothing was done to, nor to etcd."""
    touched = {deed.where for deed in schedule.deeds if deed.kind not in ("migrate", "drain")}
    if touched & {"e1", "e2", "e3"} or any(deed.kind in _EVERYWHERE for deed in schedule.deeds):
        return []
    fences = [event for event in events if event["kind"] == "fence" and event["host"] not in touched]
    return [f"{event['host']} fenced: {event['reason']}, {event['evidence_age_s']} s" for event in fences]
