"""Election of a leader, on the memory store and on real etcd."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ucloud.errors import Conflict
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Store, Txn
from ucloud.store.election import Election


class Candidate:
    """An election run by a thread of its own, as a loop would."""

    def __init__(self, store: Store, name: str, identity: str) -> None:
        self.lost = threading.Event()
        self.won = threading.Event()
        self.stop = threading.Event()
        self.election = Election(store, name, identity, ttl_s=1, on_lost=self.lost.set)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        if self.election.campaign(self.stop):
            self.won.set()

    def leave(self) -> None:
        self.stop.set()
        self._thread.join()
        self.election.resign()


@pytest.fixture
def candidate(store: Store, root: str) -> Iterator[Callable[[str], Candidate]]:
    candidates: list[Candidate] = []

    def stand(identity: str) -> Candidate:
        candidates.append(Candidate(store, root, identity))
        return candidates[-1]

    yield stand
    for standing in candidates:
        standing.leave()


def queue(store: Store, name: str) -> list[dict[str, str]]:
    items = sorted(store.list(keys.election(name)).items, key=lambda item: item.create_revision)
    return [json.loads(item.value) for item in items]


def wait_until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.02)


def test_one_leads_and_the_next_follows(store: Store, root: str, candidate: Callable[[str], Candidate]) -> None:
    first = candidate("first")
    assert first.won.wait(5)
    second = candidate("second")
    wait_until(lambda: len(queue(store, root)) == 2)
    assert [entry["identity"] for entry in queue(store, root)] == ["first", "second"]
    assert not second.won.wait(1.5)  # longer than the lease: both keep theirs
    assert first.election.is_leader
    assert not second.election.is_leader
    first.election.resign()
    assert second.won.wait(5)
    assert second.election.is_leader
    assert not first.election.is_leader
    assert first.lost.is_set()


def test_the_middle_one_leaves(store: Store, root: str, candidate: Callable[[str], Candidate]) -> None:
    first = candidate("first")
    assert first.won.wait(5)
    middle = candidate("middle")
    wait_until(lambda: len(queue(store, root)) == 2)
    last = candidate("last")
    wait_until(lambda: len(queue(store, root)) == 3)
    started_s = time.monotonic()
    middle.leave()
    assert time.monotonic() - started_s < 1.5
    assert not middle.won.is_set()
    assert not last.won.wait(0.3)
    first.election.resign()
    assert last.won.wait(5)


def test_a_leader_whose_key_vanishes_knows_and_cannot_write(
    store: Store, root: str, candidate: Callable[[str], Candidate]
) -> None:
    first = candidate("first")
    assert first.won.wait(5)
    guard = first.election.guard()
    assert store.commit(Txn((guard,), (Put(root + "plan", b"1"),))).ok
    second = candidate("second")
    wait_until(lambda: len(queue(store, root)) == 2)
    store.commit(Txn((), (Delete(guard.key),)))  # as an expired lease would
    assert not store.commit(Txn((guard,), (Put(root + "plan", b"late"),))).ok
    assert second.won.wait(5)
    assert first.lost.wait(5)
    assert not first.election.is_leader
    with pytest.raises(Conflict):
        first.election.guard()
    assert store.commit(Txn((second.election.guard(),), (Put(root + "plan", b"2"),))).ok
    assert not store.commit(Txn((guard,), (Put(root + "plan", b"late"),))).ok


def test_a_revoked_lease_ends_the_leadership(store: Store, root: str, candidate: Callable[[str], Candidate]) -> None:
    first = candidate("first")
    assert first.won.wait(5)
    item = store.get(first.election.guard().key)
    assert item is not None
    assert str(item.lease) not in item.key
    assert str(item.lease).encode() not in item.value
    store.revoke_lease(item.lease)
    assert first.lost.wait(5)
    assert first.election.campaign(threading.Event())  # stands again, with a new key
    assert first.election.is_leader
    assert first.election.guard().key != item.key


def test_who_does_not_lead_has_no_guard(store: Store, root: str) -> None:
    election = Election(store, root, "nobody")
    assert not election.is_leader
    with pytest.raises(Conflict):
        election.guard()
    election.resign()


def test_a_stopped_campaign_leaves_nothing(store: Store, root: str) -> None:
    stop = threading.Event()
    stop.set()
    election = Election(store, root, "late")
    assert not election.campaign(stop)
    assert queue(store, root) == []
