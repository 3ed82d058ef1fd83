"""Questions to the keepers of the etcd members: has your member a leader? (docs/failover.md, B.)

Over TLS with the certificates of the store. A round has two steps: first whole connections to all keepers, which may
take a while on a busy machine; then the questions, and only those belong to the round. Must hold: only a whole answer
that came in time counts; a refused connection, silence and every other error are no answer.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ucloud.errors import InvalidInput
from ucloud.guard.rules import KeeperAnswer, LeaderState
from ucloud.model.guard import Voter
from ucloud.store.etcd_http import Connection, TransportError, connect, parse_endpoint
from ucloud.system.clock import Clock

LEADER_PATH = "/v1/leader"
T = TypeVar("T")


class KeeperCall(Protocol):
    """A connection to one keeper, for one question. Times are when to give up."""

    def ask(self, until_s: float) -> KeeperAnswer | None:
        """None if it does not answer as it should."""

    def close(self) -> None: ...


DialKeeper = Callable[[Voter, float], KeeperCall | None]  # None if there is no connection in time


@dataclass(frozen=True, slots=True)
class _Call:
    connection: Connection

    def ask(self, until_s: float) -> KeeperAnswer | None:
        try:
            self.connection.send(LEADER_PATH, b"", {"Connection": "close"}, deadline_s=until_s, method="GET")
            head = self.connection.read_head(deadline_s=until_s)
            body = self.connection.read_body(head, deadline_s=until_s)
        except TransportError:
            return None
        return parse_keeper_answer(body) if head.status == 200 else None

    def close(self) -> None:
        self.connection.close()


def keeper_dialler(context: ssl.SSLContext, clock: Clock) -> DialKeeper:
    def dial(voter: Voter, until_s: float) -> KeeperCall | None:
        try:
            return _Call(connect(parse_endpoint(voter.door), context, clock, deadline_s=until_s))
        except (TransportError, InvalidInput):
            return None

    return dial


def parse_keeper_answer(body: bytes) -> KeeperAnswer | None:
    try:
        plain = json.loads(body)
        return KeeperAnswer(str(plain["cluster_id"]), str(plain["member_id"]), LeaderState(plain["state"]))
    except (ValueError, TypeError, KeyError):
        return None


def dial_all(voters: Sequence[Voter], dial: DialKeeper, clock: Clock, *, until_s: float) -> dict[str, KeeperCall]:
    """Connections to all at once, by the member's id: those that came before ``until_s``. The caller closes them."""
    jobs = {voter.member_id: lambda voter=voter: dial(voter, until_s) for voter in voters}
    return _all_at_once(jobs, clock, until_s=until_s, too_late=lambda call: call.close())


def ask_all(calls: Mapping[str, KeeperCall], clock: Clock, *, until_s: float) -> dict[str, KeeperAnswer]:
    """The answers that came before ``until_s``, by the asked member's id."""
    jobs = {member_id: lambda call=call: call.ask(until_s) for member_id, call in calls.items()}
    return _all_at_once(jobs, clock, until_s=until_s, too_late=lambda answer: None)


def _all_at_once(
    jobs: Mapping[str, Callable[[], T | None]], clock: Clock, *, until_s: float, too_late: Callable[[T], None]
) -> dict[str, T]:
    """What came of the jobs until then; what comes later is given to ``too_late``."""
    lock = threading.Lock()
    found: dict[str, T] = {}
    over = False

    def do(name: str, job: Callable[[], T | None]) -> None:
        result = job()
        if result is None:
            return
        with lock:
            if not over:
                found[name] = result
                return
        too_late(result)

    threads = [threading.Thread(target=do, args=pair, name="ask", daemon=True) for pair in jobs.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s - clock.monotonic_s()))
    with lock:
        over = True
        return found
