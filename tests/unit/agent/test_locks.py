"""The run lock: taken only by the placed host with a life sign that is not fenced, kept until given back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit import samples
from tests.unit.world import key_of
from ucloud.agent.locks import Locks
from ucloud.errors import Conflict, StoreError, StoreUnavailable, Unavailable
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.migration_plan import LockView
from ucloud.model.vm import Failover
from ucloud.model.wanted import WantedVm
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Txn
from ucloud.store.codec import encode
from ucloud.store.memory import MemoryStore
from ucloud.store.view import Entry
from ucloud.system.history import Silence


@pytest.fixture
def store() -> MemoryStore:
    made = MemoryStore()
    put(made, samples.PLACEMENT, samples.LIFE_SIGN)
    return made


def locks_of(store: MemoryStore) -> Locks:
    return Locks(store, "host-1", Silence())


def put(store: MemoryStore, *values: object) -> None:
    for value in values:
        store.commit(Txn((), (Put(key_of(value), encode(value)),)))


def take(store: MemoryStore, *, generation: int = 1, incarnation: str = "inc-1") -> None:
    locks_of(store).take("vm-1", generation=generation, incarnation=incarnation)


def is_held(store: MemoryStore) -> bool:
    return locks_of(store).read("vm-1") is not None


def test_taken_once_and_kept(store: MemoryStore) -> None:
    take(store)
    revision = store.list(keys.ROOT).revision
    take(store)
    assert store.list(keys.ROOT).revision == revision, "taking it again writes nothing"
    assert is_held(store)


def test_given_back(store: MemoryStore) -> None:
    take(store)
    locks = locks_of(store)
    locks.release("vm-1", generation=1)
    locks.release("vm-1", generation=1)
    assert not is_held(store)


def test_not_for_another_generation(store: MemoryStore) -> None:
    with pytest.raises(Conflict):
        take(store, generation=2)


def test_not_when_placed_elsewhere(store: MemoryStore) -> None:
    put(store, replace(samples.PLACEMENT, host_id="host-2", generation=2))
    with pytest.raises(Conflict):
        take(store)


def test_not_without_a_placement(store: MemoryStore) -> None:
    with pytest.raises(Conflict):
        locks_of(store).take("vm-9", generation=1, incarnation="inc-1")


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
    assert is_held(store)


def process(*, generation: int = 1, incarnation: str = "inc-1") -> VmProcess:
    return VmProcess("vm-1", generation, 1, incarnation, Failover.RESTART, 1, True, samples.AT)


def document(store: MemoryStore) -> Entry[WantedVm]:
    key = keys.wanted("host-1", "vm", "vm-1")
    revision = store.commit(Txn((), (Put(key, encode(samples.WANTED_VM)),))).revision
    return Entry(key, samples.WANTED_VM, revision)


@pytest.mark.parametrize(
    ("generation", "given_away"), [(3, True), (2, False), (1, False)], ids=["newer", "the same", "older"]
)
def test_only_a_newer_placement_gives_a_process_away(store: MemoryStore, generation: int, given_away: bool) -> None:
    put(store, replace(samples.PLACEMENT, host_id="host-2", generation=generation))
    assert locks_of(store).is_given_away(process(generation=2)) is given_away


def test_a_placement_that_is_not_there_gives_nothing_away_and_a_mark_does(store: MemoryStore) -> None:
    store.commit(Txn((), (Delete(keys.placement("vm-1")),)))
    assert not locks_of(store).is_given_away(process())
    store.commit(Txn((), (Put(keys.fenced("host-1", "inc-1"), b"{}"),)))
    assert locks_of(store).is_given_away(process())


def test_it_says_what_its_process_was_born_with(store: MemoryStore) -> None:
    locks_of(store).take("vm-1", generation=1, incarnation="inc-1", failover=Failover.RESTART, pool_id="pool-1")
    lock = locks_of(store).read("vm-1")
    assert lock is not None
    assert (lock.failover, lock.pool_id) == (Failover.RESTART, "pool-1")


def test_a_lock_of_a_later_generation_is_not_given_back(store: MemoryStore) -> None:
    """The VM has come back by a migration while an older end of it was still being tidied up."""
    take(store)
    locks_of(store).release("vm-1", generation=0)
    assert is_held(store)
    locks_of(store).release("vm-1", generation=1)
    assert not is_held(store)


def test_whose_it_is_read_together_with_the_document(store: MemoryStore) -> None:
    entry = document(store)
    assert locks_of(store).view(process(), entry) is LockView.OTHER, "there is none"
    take(store)
    assert locks_of(store).view(process(), entry) is LockView.OWN
    assert locks_of(store).view(process(generation=2), entry) is LockView.OTHER
    assert locks_of(store).view(process(incarnation="inc-2"), entry) is LockView.OTHER
    document(store)
    assert locks_of(store).view(process(), entry) is LockView.UNKNOWN, "decided on an old document"


def test_an_unreadable_store_says_nothing_about_the_lock(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = document(store)

    def silent(*_: object) -> None:
        raise StoreUnavailable("failed to read: nobody answers")

    monkeypatch.setattr(store, "read", silent)
    assert locks_of(store).view(process(), entry) is LockView.UNKNOWN
