"""The life sign in a store, one look at a time; and the threads that look."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Sequence

import pytest

from tests.contract.guard_process import wait_for
from ucloud.config.sections import StoreSection
from ucloud.errors import StoreUnavailable
from ucloud.guard.keepers import KeeperCall, ask_all, dial_all
from ucloud.guard.life import Identity, Life
from ucloud.guard.notes import Notes
from ucloud.guard.rules import KeeperAnswer, LeaderState, Step
from ucloud.guard.witnesses import Witnesses, open_stores
from ucloud.model.guard import LifeSign, Members, Voter
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Reading, Store, Txn
from ucloud.store.codec import decode_as, encode
from ucloud.store.memory import MemoryStore
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.history import Silence

HOST = "host-a"
MEMBERS = Members("9", 7, (Voter("m1", "1", "https://[::1]:1"), Voter("m2", "2", "https://[::1]:2")))


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


def make_life(clock: Clock, incarnation: str = "one", *, fence_s: float = 3.0) -> Life:
    identity = Identity(HOST, incarnation, "now", fence_s=fence_s, kill_s=0.25)
    return Life(identity, ttl_s=1, clock=clock, history=Silence(), notes=Notes())


def sign(store: MemoryStore, key: str) -> LifeSign | None:
    item = store.get(key)
    return decode_as(LifeSign, item.value) if item else None


def test_it_registers_then_has_evidence_then_renews(store: MemoryStore, clock: FakeClock) -> None:
    life = make_life(clock)
    assert life.look(store) is Step.REGISTER
    assert not life.state.alive
    assert life.look(store) is Step.RENEW
    assert life.state.alive
    shown = sign(store, keys.alive(HOST))
    assert shown is not None
    assert shown == sign(store, keys.registered(HOST))
    assert (shown.host_id, shown.incarnation, shown.fence_s, shown.kill_s) == (HOST, "one", 3.0, 0.25)
    for _ in range(10):
        clock.at_s += 0.4
        assert life.look(store) is Step.RENEW
    assert life.state.longest_gap_s == pytest.approx(0.4)


def test_after_its_lease_ended_it_registers_again(store: MemoryStore, clock: FakeClock) -> None:
    life = make_life(clock)
    life.look(store)
    registered = store.get(keys.registered(HOST))
    clock.at_s += 5
    assert store.get(keys.alive(HOST)) is None
    assert life.look(store) is Step.REGISTER
    assert life.look(store) is Step.RENEW
    again = store.get(keys.registered(HOST))
    assert registered is not None
    assert again is not None
    assert again.mod_revision > registered.mod_revision  # rule A5 looks at this


def test_a_deleted_key_is_made_again(store: MemoryStore, clock: FakeClock) -> None:
    life = make_life(clock)
    life.look(store)
    store.commit(Txn((), (Delete(keys.alive(HOST)),)))
    assert [life.look(store), life.look(store)] == [Step.REGISTER, Step.RENEW]
    assert not life.over.is_set()


def test_a_fenced_incarnation_does_not_register(store: MemoryStore, clock: FakeClock) -> None:
    life = make_life(clock)
    life.look(store)
    store.commit(Txn((), (Delete(keys.alive(HOST)), Put(keys.fenced(HOST, "one"), b"{}"))))
    assert life.look(store) is Step.YIELD
    assert life.state.fenced
    assert life.over.is_set()
    assert store.get(keys.alive(HOST)) is None
    successor = make_life(clock, "two")
    assert [successor.look(store), successor.look(store)] == [Step.REGISTER, Step.RENEW]


def test_a_successor_replaces_and_the_old_one_yields(store: MemoryStore, clock: FakeClock) -> None:
    old, new = make_life(clock), make_life(clock, "two")
    old.look(store)
    old.look(store)
    assert [new.look(store), new.look(store)] == [Step.REGISTER, Step.RENEW]
    assert old.look(store) is Step.YIELD
    assert (old.state.replaced, old.state.alive, old.over.is_set()) == (True, False, True)
    assert new.look(store) is Step.RENEW


def test_it_renews_the_lease_that_its_key_is_on(store: MemoryStore, clock: FakeClock) -> None:
    """A registration whose answer got lost is found by reading."""
    life = make_life(clock)
    life.look(store)
    lease = store.grant_lease(1).id
    item = store.get(keys.alive(HOST))
    assert item is not None
    store.commit(Txn((), (Put(keys.alive(HOST), item.value, lease=lease),)))
    for _ in range(10):
        clock.at_s += 0.5
        assert life.look(store) is Step.RENEW
    life.give_up(store)
    assert store.get(keys.alive(HOST)) is None


@pytest.mark.parametrize(("stored", "version"), [(encode(MEMBERS), 7), (b"broken", 0), (None, 0)])
def test_members_come_with_the_evidence(
    store: MemoryStore, clock: FakeClock, stored: bytes | None, version: int
) -> None:
    if stored is not None:
        store.commit(Txn((), (Put(keys.members(), stored),)))
    life = make_life(clock)
    life.look(store)
    assert life.state.members_version == 0
    life.look(store)
    assert life.state.members_version == version
    assert life.state.alive


class Broken(MemoryStore):
    """A store that does not answer while ``down``."""

    down = True

    def read(self, wanted: Sequence[str]) -> Reading:
        if self.down:
            raise StoreUnavailable("failed to reach the store")
        return super().read(wanted)


def test_the_threads_outlive_a_store_that_is_down_and_give_the_sign_up_at_their_end() -> None:
    store = Broken()
    life = make_life(SystemClock())
    witnesses = Witnesses(life, [store], None, SystemClock())
    witnesses.start()
    assert not life.state.registered_at_s
    store.down = False
    wait_for(lambda: life.state.alive)
    witnesses.stop()
    assert store.get(keys.alive(HOST)) is None
    assert store.get(keys.registered(HOST)) is not None


class Hanging(MemoryStore):
    """A member that takes a question and never answers, until the end of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def read(self, wanted: Sequence[str]) -> Reading:
        self.ended.wait()
        raise StoreUnavailable("failed to reach the store")


def test_a_member_that_hangs_holds_up_no_other() -> None:
    hanging, store = Hanging(), MemoryStore()
    life = make_life(SystemClock())
    witnesses = Witnesses(life, [hanging, store], None, SystemClock())
    witnesses.start()
    wait_for(lambda: life.state.alive)
    assert store.get(keys.alive(HOST)) is not None
    hanging.ended.set()
    witnesses.stop()


class Leaderless:
    """A keeper that says that there is no leader, once it is let."""

    def __init__(self, voter: Voter, late: threading.Event | None = None) -> None:
        self._voter = voter
        self._late = late
        self.closed = threading.Event()
        self.asked = False

    def ask(self, until_s: float) -> KeeperAnswer | None:
        self.asked = True
        if self._late is not None:
            self._late.wait(5)
        return KeeperAnswer("9", self._voter.member_id, LeaderState.NO_LEADER)

    def close(self) -> None:
        self.closed.set()


def test_keepers_are_asked_when_the_store_is_silent() -> None:
    store = Broken()
    store.down = False
    store.commit(Txn((), (Put(keys.members(), encode(MEMBERS)),)))
    life = make_life(SystemClock())

    witnesses = Witnesses(life, [store], lambda voter, until_s: Leaderless(voter), SystemClock())
    witnesses.start()
    wait_for(lambda: life.state.members_version)
    store.down = True
    evidence_at_s = life.state.evidence_at_s
    wait_for(lambda: life.state.evidence_at_s > evidence_at_s + 2)
    witnesses.stop()


def test_answers_that_come_too_late_belong_to_no_round() -> None:
    late = threading.Event()
    calls: dict[str, KeeperCall] = {
        voter.member_id: Leaderless(voter, late if voter.member_id == "2" else None) for voter in MEMBERS.voters
    }
    clock = SystemClock()
    answers = ask_all(calls, clock, until_s=clock.monotonic_s() + 0.05)
    late.set()
    assert set(answers) == {"1"}


def test_a_connection_that_comes_too_late_is_closed_again() -> None:
    late = threading.Event()
    second = Leaderless(MEMBERS.voters[1])

    def dial(voter: Voter, until_s: float) -> KeeperCall | None:
        if voter.member_id == "1":
            return None
        late.wait(5)
        return second

    clock = SystemClock()
    assert dial_all(MEMBERS.voters, dial, clock, until_s=clock.monotonic_s() + 0.05) == {}
    late.set()
    assert second.closed.wait(5)


def test_a_slow_handshake_takes_nothing_from_the_round_and_without_all_voters_nobody_is_asked() -> None:
    """A round counts from its questions: connections to busy machines may take longer than it lasts."""
    store = Broken()
    store.down = False
    store.commit(Txn((), (Put(keys.members(), encode(MEMBERS)),)))
    life = make_life(SystemClock())
    reachable = threading.Event()
    calls: list[Leaderless] = []

    def dial(voter: Voter, until_s: float) -> KeeperCall | None:
        if voter.member_id == "2":
            threading.Event().wait(0.3)
            if not reachable.is_set():
                return None
        calls.append(Leaderless(voter))
        return calls[-1]

    witnesses = Witnesses(life, [store], dial, SystemClock())
    witnesses.start()
    wait_for(lambda: life.state.members_version)
    store.down = True
    wait_for(lambda: any(call.closed.is_set() for call in calls))
    assert not any(call.asked for call in calls)
    reachable.set()
    evidence_at_s = life.state.evidence_at_s
    wait_for(lambda: life.state.evidence_at_s > evidence_at_s + 1.5)
    witnesses.stop()


def test_each_member_gets_a_store_of_its_own_that_gives_up_soon() -> None:
    made: list[StoreSection] = []

    def make_store(settings: StoreSection) -> Store:
        made.append(settings)
        return MemoryStore()

    open_stores(StoreSection(endpoints=("https://a", "https://b")), 2.25, make_store)
    assert [one.endpoints for one in made] == [("https://a",), ("https://b",)]
    assert {one.timeout_s for one in made} == {1.5}
    made.clear()
    open_stores(StoreSection(endpoints=("https://a",), timeout_s=4.0), 0.0, make_store)
    assert [one.timeout_s for one in made] == [4.0]
