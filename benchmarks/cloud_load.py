"""What the benchmarks of outages have in common: somebody who writes through the API, somebody who asks the guards.

Must hold: a write counts as back only if it was begun after the fault; every acknowledged write is told to the
history, so that the checker can look for it.
"""

from __future__ import annotations

import base64
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from json import loads
from typing import Any

from ucloud.client import Client
from ucloud.client.profile import load_profile
from ucloud.errors import Error
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.lab import members
from ucloud.lab.driver import Lab
from ucloud.lab.nodes import CLIENT, NodeKind
from ucloud.lab.telling import LabHistory
from ucloud.lab.violations import Violation, ViolationKind
from ucloud.system.clock import SystemClock

CLOCK = SystemClock()
WRITERS = 4
WRITE_EVERY_S = 0.4
POLL_EVERY_S = 0.1
_ASK_TIMEOUT_S, _PATIENCE_S = 5.0, 5.0
_LOOK_EVERY_S = 0.05
_BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)
PUBLIC_KEY = f"ssh-ed25519 {base64.b64encode(_BLOB).decode()}"


def wait_for(look: Callable[[], object], what: str, *, timeout_s: float) -> float:
    """How long it took until ``look`` found something. Errors of the cloud are waited out."""
    began_s = CLOCK.monotonic_s()
    cause = ""
    while CLOCK.monotonic_s() - began_s < timeout_s:
        try:
            if look():
                return CLOCK.monotonic_s() - began_s
            cause = ""
        except Error as error:
            cause = f": {error.message}"
        time.sleep(_LOOK_EVERY_S)
    raise SystemExit(f"not seen in {timeout_s:g} s: {what}{cause}")


def all_well(lab: Lab) -> bool:
    """Whether every etcd member answers, in one term with one leader, and no fault is left."""
    if lab.faults.active():
        return False
    states = members.member_states(lab.layout, lab.shape)
    return all(state.has_leader for state in states) and len({state.term for state in states}) == 1


def only_false_fences(violations: Iterable[Violation]) -> int:
    return sum(violation.kind is ViolationKind.FALSE_FENCE for violation in violations)


class Writers:
    """Some threads on the client node that add keys through the API, together some ten a second."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._history = LabHistory(lab.layout)
        self._over = threading.Event()
        self._acks: list[list[tuple[float, float]]] = [[] for _ in range(WRITERS)]
        self._ids: set[str] = set()
        self._lock = threading.Lock()
        self.errors = 0
        self._threads = [
            threading.Thread(target=lab.inside, args=(CLIENT, lambda one=one: self._write(one)), daemon=True)
            for one in range(WRITERS)
        ]

    @property
    def count(self) -> int:
        return len(self._ids)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def acked_after(self, at_s: float) -> bool:
        return any(acks and acks[-1][0] >= at_s for acks in self._acks)

    def all_acked_after(self, at_s: float) -> bool:
        return all(acks and acks[-1][0] >= at_s for acks in self._acks)

    def backs(self, at_s: float) -> list[float]:
        """For each writer the seconds from ``at_s`` until a write of its own, begun later, was acknowledged."""
        return [next(acked_s for began_s, acked_s in acks if began_s >= at_s) - at_s for acks in self._acks]

    def end(self) -> set[str]:
        """Stop writing; the ids of acknowledged writes that are not there."""
        self._over.set()
        for thread in self._threads:
            thread.join(30)
        found = {one["id"] for one in self._lab.ask(lambda client: list(client.each("key")), timeout_s=30.0)}
        for one in found & self._ids:
            self._history.tell("write_found", id=one)
        return self._ids - found

    def _write(self, writer: int) -> None:
        number = 0
        profile = load_profile(self._lab.layout.client_profile)
        with Client(profile, timeout_s=_ASK_TIMEOUT_S, patience_s=_PATIENCE_S) as client:
            while not self._over.wait(WRITE_EVERY_S):
                number += 1
                self._write_one(client, writer, f"w{writer}-{number}")

    def _write_one(self, client: Client, writer: int, name: str) -> None:
        began_s = CLOCK.monotonic_s()
        try:
            made = client.create("key", {"name": name, "public_key": PUBLIC_KEY})
        except Error as error:
            with self._lock:
                self.errors += 1
            print(f"write {name} failed after {CLOCK.monotonic_s() - began_s:.2f} s: {error.message}", file=sys.stderr)
            return
        self._acks[writer].append((began_s, CLOCK.monotonic_s()))
        with self._lock:
            self._ids.add(made["id"])
        self._history.tell("write_acked", id=made["id"], key=name)


class GuardPoll(threading.Thread):
    """Asks each guard again and again how old its evidence is."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(name="guards", daemon=True)
        self._clients = {
            node.name: GuardClient(lab.layout.node(node.name).run / "guard.sock", timeout_s=2.0)
            for node in lab.nodes(NodeKind.HOST)
        }
        self._over = threading.Event()
        self._ages: dict[str, float] = {}
        self._oldest: dict[str, float] = {}
        self.incarnations: dict[str, set[str]] = {name: set() for name in self._clients}
        self.longest_gap_s = 0.0

    def run(self) -> None:
        while not self._over.wait(POLL_EVERY_S):
            for name, client in self._clients.items():
                try:
                    hello = client.hello()
                except Error:
                    continue
                self._ages[name] = hello.evidence_age_s
                self._oldest[name] = max(self._oldest.get(name, 0.0), hello.evidence_age_s)
                self.longest_gap_s = max(self.longest_gap_s, hello.longest_gap_s)
                self.incarnations[name].add(hello.incarnation)

    def forget(self) -> None:
        self._oldest = {}

    def oldest(self) -> dict[str, float]:
        """The oldest that each guard's evidence was since ``forget``."""
        return dict(self._oldest)

    def newest_age_s(self) -> float:
        """That of the guard whose evidence is oldest now."""
        return max(self._ages.values())

    def end(self) -> None:
        self._over.set()
        self.join()


class HistoryTail:
    """What was added to a lab's history since it was last read."""

    def __init__(self, lab: Lab) -> None:
        self._path = lab.layout.history
        self._offset = 0

    def read(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            lines = [line for line in file if line.endswith(b"\n")]
        self._offset += sum(map(len, lines))
        return iter([loads(line) for line in lines])
