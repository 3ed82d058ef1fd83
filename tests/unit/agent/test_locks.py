"""The run lock: taken only by the placed host with a life sign that is not fenced, kept until given back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit import samples
from tests.unit.world import key_of
from ucloud.agent.locks import Locks
from ucloud.errors import Conflict, StoreError, Unavailable
from ucloud.store import keys
from ucloud.store.api import Put, Txn
from ucloud.store.codec import encode
from ucloud.store.memory import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    put(made, samples.PLACEMENT, samples.LIFE_SIGN)
    return made


def put(store: MemoryStore, *values: object) -> None:
    for value in values:
        store.commit(Txn((), (Put(key_of(value), encode(value)),)))


def take(store: MemoryStore, *, generation: int = 1, incarnation: str = "inc-1") -> None:
    Locks(store, "host-1").take("vm-1", generation=generation, incarnation=incarnation)


def test_taken_once_and_kept(store: MemoryStore) -> None:
    take(store)
    revision = store.list(keys.ROOT).revision
    take(store)
    assert store.list(keys.ROOT).revision == revision, "taking it again writes nothing"
    assert Locks(store, "host-1").held() == {"vm-1"}


def test_given_back(store: MemoryStore) -> None:
    take(store)
    locks = Locks(store, "host-1")
    locks.release("vm-1")
    locks.release("vm-1")
    assert locks.held() == frozenset()


def test_not_for_another_generation(store: MemoryStore) -> None:
    with pytest.raises(Conflict):
        take(store, generation=2)


def test_not_when_placed_elsewhere(store: MemoryStore) -> None:
    put(store, replace(samples.PLACEMENT, host_id="host-2", generation=2))
    with pytest.raises(Conflict):
        take(store)


def test_not_without_a_placement(store: MemoryStore) -> None:
    with pytest.raises(Conflict):
        Locks(store, "host-1").take("vm-9", generation=1, incarnation="inc-1")


def test_not_without_a_life_sign() -> None:
    bare = MemoryStore()
    put(bare, samples.PLACEMENT)
    with pytest.raises(Unavailable):
        take(bare)


def test_not_with_the_life_sign_of_another_guard(store: MemoryStore) -> None:
    with pytest.raises(StoreError):
        take(store, incarnation="inc-2")


def test_not_after_a_takeover_marked_this_incarnation(store: MemoryStore) -> None:
    store.commit(Txn((), (Put(keys.fenced("host-1", "inc-1"), b"{}"),)))
    with pytest.raises(Conflict):
        take(store)


def test_a_new_guard_of_the_host_takes_over_its_own_lock(store: MemoryStore) -> None:
    take(store)
    put(store, replace(samples.LIFE_SIGN, incarnation="inc-2"))
    take(store, incarnation="inc-2")
    assert Locks(store, "host-1").held() == {"vm-1"}
