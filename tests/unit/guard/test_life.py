"""The life sign in a store, one round at a time."""

from __future__ import annotations

import datetime

import pytest

from tests.contract.guard_process import wait_for
from ucloud.errors import StoreUnavailable
from ucloud.guard.life import Identity, LifeSignKeeper
from ucloud.guard.rules import Step
from ucloud.model.guard import LifeSign
from ucloud.store import keys
from ucloud.store.api import Delete, Item, Put, Txn
from ucloud.store.codec import decode_as
from ucloud.store.memory import MemoryStore
from ucloud.system.clock import SystemClock

HOST = "host-a"


class FakeClock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def monotonic_s(self) -> float:
        return self.at_s

    def now(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(self.at_s, datetime.UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> MemoryStore:
    return MemoryStore(clock=clock)


def keeper(store: MemoryStore, clock: FakeClock, incarnation: str = "one") -> LifeSignKeeper:
    return LifeSignKeeper(store, Identity(HOST, incarnation, "now"), ttl_s=1, clock=clock)


def sign(store: MemoryStore, key: str) -> LifeSign | None:
    item = store.get(key)
    return decode_as(LifeSign, item.value) if item else None


def test_it_registers_then_has_evidence_then_renews(store: MemoryStore, clock: FakeClock) -> None:
    life = keeper(store, clock)
    assert life.renew_once() is Step.REGISTER
    assert not life.state.alive
    assert life.renew_once() is Step.RENEW
    assert life.state.alive
    shown = sign(store, keys.alive(HOST))
    assert shown is not None
    assert shown == sign(store, keys.registered(HOST))
    assert (shown.host_id, shown.incarnation) == (HOST, "one")
    for _ in range(10):
        clock.at_s += 0.4
        assert life.renew_once() is Step.RENEW
    assert life.state.longest_gap_s == pytest.approx(0.4)


def test_after_its_lease_ended_it_registers_again(store: MemoryStore, clock: FakeClock) -> None:
    life = keeper(store, clock)
    life.renew_once()
    registered = store.get(keys.registered(HOST))
    clock.at_s += 5
    assert store.get(keys.alive(HOST)) is None
    assert life.renew_once() is Step.REGISTER
    assert life.renew_once() is Step.RENEW
    again = store.get(keys.registered(HOST))
    assert registered is not None
    assert again is not None
    assert again.mod_revision > registered.mod_revision  # rule A5 looks at this


def test_a_deleted_key_is_made_again(store: MemoryStore, clock: FakeClock) -> None:
    life = keeper(store, clock)
    life.renew_once()
    store.commit(Txn((), (Delete(keys.alive(HOST)),)))
    assert [life.renew_once(), life.renew_once()] == [Step.REGISTER, Step.RENEW]


def test_a_fenced_incarnation_does_not_register(store: MemoryStore, clock: FakeClock) -> None:
    life = keeper(store, clock)
    life.renew_once()
    store.commit(Txn((), (Delete(keys.alive(HOST)), Put(keys.fenced(HOST, "one"), b"{}"))))
    assert life.renew_once() is Step.YIELD
    assert life.state.fenced
    assert store.get(keys.alive(HOST)) is None
    successor = keeper(store, clock, "two")
    assert [successor.renew_once(), successor.renew_once()] == [Step.REGISTER, Step.RENEW]


def test_a_successor_replaces_and_the_old_one_yields(store: MemoryStore, clock: FakeClock) -> None:
    old, new = keeper(store, clock), keeper(store, clock, "two")
    old.renew_once()
    old.renew_once()
    assert [new.renew_once(), new.renew_once()] == [Step.REGISTER, Step.RENEW]
    assert old.renew_once() is Step.YIELD
    assert (old.state.replaced, old.state.alive) == (True, False)
    assert new.renew_once() is Step.RENEW


def test_a_registration_whose_answer_got_lost_is_not_taken_for_another_guard(
    store: MemoryStore, clock: FakeClock
) -> None:
    life = keeper(store, clock)
    life.renew_once()
    life.renew_once()
    life._lease_id = 0  # as if a second registration had been sent, and the first one came in late
    assert [life.renew_once(), life.renew_once()] == [Step.REGISTER, Step.RENEW]
    assert not life.state.replaced


class Broken(MemoryStore):
    """A store that does not answer while ``down``."""

    down = True

    def get(self, key: str) -> Item | None:
        if self.down:
            raise StoreUnavailable("failed to reach the store")
        return super().get(key)


def test_the_thread_outlives_a_store_that_is_down_and_gives_the_sign_up_at_its_end() -> None:
    store = Broken()
    life = LifeSignKeeper(store, Identity(HOST, "one", "now"), ttl_s=1, clock=SystemClock())
    life.start()
    assert not life.state.registered
    store.down = False
    wait_for(lambda: life.state.alive)
    life.stop(timeout_s=5)
    assert store.get(keys.alive(HOST)) is None
    assert store.get(keys.registered(HOST)) is not None
