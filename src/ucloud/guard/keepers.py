"""Questions to the keepers of the etcd members: has your member a leader? (docs/failover.md, B.)

Over TLS with the certificates of the store. Must hold: only a whole answer that came in time counts; a refused
connection, silence and every other error are no answer.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Sequence

from ucloud.errors import InvalidInput
from ucloud.guard.rules import KeeperAnswer, LeaderState
from ucloud.model.guard import Voter
from ucloud.store.etcd_http import TransportError, connect, parse_endpoint
from ucloud.system.clock import Clock

LEADER_PATH = "/v1/leader"

AskKeeper = Callable[[Voter, float], KeeperAnswer | None]  # the float is when to give up


def keeper_asker(context: ssl.SSLContext, clock: Clock) -> AskKeeper:
    """A function that asks one keeper; None if it does not answer as it should."""

    def ask(voter: Voter, until_s: float) -> KeeperAnswer | None:
        try:
            connection = connect(parse_endpoint(voter.door), context, clock, deadline_s=until_s)
        except (TransportError, InvalidInput):
            return None
        try:
            connection.send(LEADER_PATH, b"", {"Connection": "close"}, deadline_s=until_s, method="GET")
            head = connection.read_head(deadline_s=until_s)
            body = connection.read_body(head, deadline_s=until_s)
        except TransportError:
            return None
        finally:
            connection.close()
        return parse_keeper_answer(body) if head.status == 200 else None

    return ask


def parse_keeper_answer(body: bytes) -> KeeperAnswer | None:
    try:
        plain = json.loads(body)
        return KeeperAnswer(str(plain["cluster_id"]), str(plain["member_id"]), LeaderState(plain["state"]))
    except (ValueError, TypeError, KeyError):
        return None


def ask_all(voters: Sequence[Voter], ask: AskKeeper, clock: Clock, *, until_s: float) -> dict[str, KeeperAnswer]:
    """All at once; the answers that came before ``until_s``, by the asked member's id."""
    lock = threading.Lock()
    answers: dict[str, KeeperAnswer] = {}

    def ask_one(voter: Voter) -> None:
        answer = ask(voter, until_s)
        if answer is not None:
            with lock:
                answers[voter.member_id] = answer

    threads = [threading.Thread(target=ask_one, args=(voter,), name="ask", daemon=True) for voter in voters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until_s - clock.monotonic_s()))
    with lock:  # what comes later belongs to no round
        return dict(answers)
