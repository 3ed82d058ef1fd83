"""When the guard has evidence, fences, lets go on, registers, ends, or starts nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.guard.rules import (
    Action,
    AliveKey,
    Fate,
    Hold,
    KeeperAnswer,
    LeaderState,
    LifeState,
    Step,
    closed,
    fate,
    next_action,
    next_step,
    pass_time,
    refusal,
    registered,
    round_is_evidence,
    see,
    see_round,
    wants_round,
)
from ucloud.model.guard import Members, Voter
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover

F = 3.0
MEMBERS = Members("9", 4, tuple(Voter(f"m{index}", str(index), f"https://k{index}:1") for index in (1, 2, 3)))
NOBODY_LEADS = {voter.member_id: KeeperAnswer("9", voter.member_id, LeaderState.NO_LEADER) for voter in MEMBERS.voters}


def read(
    state: LifeState, sent_at_s: float, now_s: float = 0.0, *, key: AliveKey = AliveKey.OURS, fenced: bool = False
) -> LifeState:
    return see(state, key, fenced=fenced, sent_at_s=sent_at_s, now_s=now_s or sent_at_s, members=MEMBERS)


LIVING = read(LifeState(fence_s=F), 100.0)


def test_a_read_that_shows_our_key_is_evidence_from_when_it_was_sent() -> None:
    state = read(LifeState(fence_s=F), 5.0, 5.9)
    assert (state.alive, state.registered_at_s, state.evidence_at_s, state.deadline_s) == (True, 5.9, 5.0, 8.0)
    state = read(read(state, 7.5), 7.2, 7.9)
    assert (state.evidence_at_s, state.longest_gap_s) == (7.5, 2.5)
    assert state.evidence_age_s(9.0) == 1.5
    assert LifeState().evidence_age_s(9.0) == -1.0


def test_a_lost_key_is_no_evidence_and_is_made_again_and_nothing_is_killed() -> None:
    state = read(LIVING, 101.0, key=AliveKey.LOST)
    assert (state.alive, state.evidence_at_s, state.is_over) == (False, 100.0, False)
    assert next_step(state, AliveKey.LOST) is Step.REGISTER
    assert next_action(state, 101.0) is Action.NOTHING
    state = read(registered(state, 101.1), 101.2)
    assert (next_action(state, 103.9), next_action(state, 104.2)) == (Action.NOTHING, Action.FENCE)


@pytest.mark.parametrize("key", list(AliveKey))
def test_a_fenced_guard_ends_and_stays_so(key: AliveKey) -> None:
    state = read(LIVING, 101.0, key=key, fenced=True)
    for later in (state, read(state, 102.0)):
        assert next_step(later, AliveKey.OURS) is Step.YIELD
        assert next_action(later, 102.0) is Action.END
        assert not later.alive
        assert later.evidence_at_s == 100.0


def test_a_new_guard_takes_the_place_of_its_predecessor() -> None:
    state = read(LifeState(fence_s=F), 1.0, key=AliveKey.FOREIGN)
    assert next_step(state, AliveKey.FOREIGN) is Step.REGISTER
    assert next_action(state, 1.0) is Action.NOTHING


def test_an_old_answer_that_shows_the_predecessor_does_not_make_us_replaced() -> None:
    state = registered(LifeState(fence_s=F), 2.0)
    assert not read(state, 1.9, 2.1, key=AliveKey.FOREIGN).replaced
    assert read(state, 2.0, 2.1, key=AliveKey.FOREIGN).replaced


def test_a_guard_that_was_replaced_ends() -> None:
    state = read(LIVING, 101.0, key=AliveKey.FOREIGN)
    assert (next_step(state, AliveKey.FOREIGN), next_action(state, 101.0)) == (Step.YIELD, Action.END)


def test_at_the_deadline_it_fences_until_that_is_done() -> None:
    assert next_action(LIVING, 102.99) is Action.NOTHING
    assert next_action(LIVING, 103.0) is Action.FENCE
    fencing = pass_time(LIVING, 103.0)
    assert (fencing.hold, next_action(fencing, 100.0)) == (Hold.CLOSING, Action.FENCE)
    assert next_action(closed(fencing, 103.1), 200.0) is Action.NOTHING


@pytest.mark.parametrize(("sent_at_s", "now_s"), [(102.0, 103.0), (102.9, 103.5), (103.05, 103.07)])
def test_evidence_that_comes_after_the_deadline_revives_nothing(sent_at_s: float, now_s: float) -> None:
    state = read(LIVING, sent_at_s, now_s)
    assert (state.evidence_at_s, next_action(state, now_s)) == (100.0, Action.FENCE)
    state = read(closed(state, now_s + 0.1), sent_at_s, now_s + 0.2)
    assert (state.hold, state.evidence_at_s) == (Hold.CLOSED, 100.0)


def test_evidence_sent_after_everything_stood_still_lets_go_on() -> None:
    state = closed(pass_time(LIVING, 103.0), 103.1)
    state = read(state, 103.2, 103.3)
    assert (state.hold, next_action(state, 103.3, frozen=True)) == (Hold.OPEN, Action.THAW)
    assert next_action(state, 103.3) is Action.NOTHING
    assert next_action(state, 106.2, frozen=True) is Action.FENCE


def test_evidence_that_is_too_old_when_it_comes_opens_nothing() -> None:
    assert read(closed(pass_time(LIVING, 103.0), 103.1), 103.2, 106.2).hold is Hold.CLOSED


def test_without_a_fence_time_nothing_is_fenced_but_a_mark_counts() -> None:
    state = read(LifeState(), 100.0)
    assert (state.deadline_s, next_action(state, 1e9)) == (math.inf, Action.NOTHING)
    assert not wants_round(state, 1e9)
    assert next_action(read(state, 101.0, key=AliveKey.LOST, fenced=True), 101.0) is Action.END


def test_a_round_without_any_leader_is_evidence_from_its_start() -> None:
    state = see_round(LIVING, MEMBERS, NOBODY_LEADS, started_at_s=101.5, now_s=101.7)
    assert (state.evidence_at_s, state.longest_gap_s, state.deadline_s) == (101.5, 1.5, 104.5)


def test_a_round_revives_nothing_and_opens_nothing() -> None:
    late = see_round(LIVING, MEMBERS, NOBODY_LEADS, started_at_s=102.9, now_s=103.0)
    assert next_action(late, 103.0) is Action.FENCE
    still = see_round(closed(late, 103.1), MEMBERS, NOBODY_LEADS, started_at_s=103.2, now_s=103.3)
    assert (still.hold, still.evidence_at_s) == (Hold.CLOSED, 100.0)
    assert refusal(still, 103.3, sealed=False, own="one", asked="one") == "no_evidence"


def test_a_round_of_another_member_list_is_none() -> None:
    other = replace(MEMBERS, version=5)
    assert see_round(LIVING, other, NOBODY_LEADS, started_at_s=101.0, now_s=101.1) == LIVING


@pytest.mark.parametrize("member_id", ["1", "2", "3"])
@pytest.mark.parametrize(
    "wrong",
    [
        None,
        KeeperAnswer("9", "1", LeaderState.LEADER),
        KeeperAnswer("8", "1", LeaderState.NO_LEADER),
        KeeperAnswer("9", "7", LeaderState.STOPPED),
    ],
)
def test_every_voter_must_say_so_by_its_own_ids(member_id: str, wrong: KeeperAnswer | None) -> None:
    assert round_is_evidence(MEMBERS, NOBODY_LEADS)
    stopped = replace(NOBODY_LEADS[member_id], state=LeaderState.STOPPED)
    assert round_is_evidence(MEMBERS, {**NOBODY_LEADS, member_id: stopped})
    answers = {key: value for key, value in NOBODY_LEADS.items() if key != member_id}
    if wrong is not None:
        own = member_id if wrong.member_id == "1" else wrong.member_id
        answers[member_id] = replace(wrong, member_id=own)
    assert not round_is_evidence(MEMBERS, answers)


def test_no_members_are_no_evidence() -> None:
    assert not round_is_evidence(Members("9", 1, ()), {})


def test_keepers_are_asked_from_a_third_of_the_time_on() -> None:
    asked = [now_s for now_s in (100.5, 100.99, 101.0, 102.9, 103.0) if wants_round(LIVING, now_s)]
    assert asked == [101.0, 102.9]
    assert not wants_round(replace(LIVING, members=None), 101.5)
    assert not wants_round(replace(LIVING, fenced=True), 101.5)


@pytest.mark.parametrize(
    ("state", "now_s", "sealed", "asked", "code"),
    [
        (LIVING, 102.9, False, "one", ""),
        (LIVING, 103.0, False, "one", "no_evidence"),
        (LifeState(fence_s=F), 1.0, False, "one", "no_evidence"),
        (LifeState(), 1.0, False, "one", ""),
        (LIVING, 101.0, True, "one", "guard_sealed"),
        (LIVING, 101.0, False, "two", "guard_replaced"),
        (LIVING, 101.0, False, "", "guard_replaced"),
        (replace(LIVING, fenced=True), 101.0, False, "one", "guard_fenced"),
        (replace(LIVING, replaced=True), 101.0, False, "one", "guard_replaced"),
        (closed(pass_time(LIVING, 103.0), 103.1), 103.2, False, "one", "no_evidence"),
    ],
)
def test_what_may_be_started(state: LifeState, now_s: float, sealed: bool, asked: str, code: str) -> None:
    assert refusal(state, now_s, sealed=sealed, own="one", asked=asked) == code


def test_what_each_process_meets() -> None:
    for action in Action:
        for pool_fence in Fence:
            assert fate(action, Failover.NONE, pool_fence, frozen=True) is Fate.NOTHING
    assert fate(Action.FENCE, Failover.RESTART, Fence.LOCK) is Fate.KILL
    assert fate(Action.FENCE, Failover.RESTART, Fence.NONE) is Fate.KILL
    assert fate(Action.FENCE, Failover.RESTART, Fence.VERB) is Fate.FREEZE
    assert fate(Action.END, Failover.RESTART, Fence.VERB, frozen=True) is Fate.KILL
    assert fate(Action.THAW, Failover.RESTART, Fence.VERB, frozen=True) is Fate.THAW
    assert fate(Action.THAW, Failover.RESTART, Fence.VERB) is Fate.NOTHING


@dataclass
class Host:
    """A mortal VM under a guard that needs no time to stop it, and until when it may run by the letter of the proof."""

    state: LifeState = LIVING
    now_s: float = 100.0
    running: bool = True
    stopped_at_s: float = 0.0
    until_s: float = 100.0 + F

    def hear(self, sent_at_s: float, key: AliveKey, *, is_round: bool) -> None:
        if is_round:
            self.state = see_round(self.state, MEMBERS, NOBODY_LEADS, started_at_s=sent_at_s, now_s=self.now_s)
        else:
            self.state = read(self.state, sent_at_s, self.now_s, key=key)
        in_time = self.now_s < self.until_s if self.running else not is_round and sent_at_s > self.stopped_at_s
        if in_time and (is_round or key is AliveKey.OURS):
            self.until_s = max(self.until_s, sent_at_s + F)

    def turn(self) -> None:
        match next_action(self.state, self.now_s, frozen=not self.running):
            case Action.FENCE:
                self.stop()
                self.state = closed(pass_time(self.state, self.now_s), self.now_s)
            case Action.END:
                self.stop()
            case Action.THAW:
                self.running = True
        assert not self.running or self.now_s < self.until_s

    def stop(self) -> None:
        if self.running:
            self.running, self.stopped_at_s = False, self.now_s


STEP_S = 0.125
TICKS = st.integers(0, 80)
# when sent and how long it took, in steps; what it showed; whether a keeper round instead
QUESTIONS = st.lists(st.tuples(TICKS, st.integers(0, 40), st.sampled_from(AliveKey), st.booleans()), max_size=30)


@given(QUESTIONS, st.sets(TICKS))
def test_no_schedule_of_answers_lets_a_mortal_run_longer_than_the_fence_time(
    questions: list[tuple[int, int, AliveKey, bool]], asleep: set[int]
) -> None:
    """``asleep``: steps in which the guard does not look, though answers come in."""
    host = Host()
    for tick in range(130):
        host.now_s = 100.0 + tick * STEP_S
        for at, took, key, is_round in questions:
            if at + took == tick:
                host.hear(100.0 + at * STEP_S, key, is_round=is_round)
        if tick not in asleep:
            host.turn()


@given(st.lists(st.floats(0.0, F - 0.001), max_size=20))
def test_blips_shorter_than_the_fence_time_do_nothing(gaps: list[float]) -> None:
    state, now_s = LIVING, 100.0
    for gap_s in gaps:
        now_s += gap_s
        assert next_action(state, now_s) is Action.NOTHING
        state = read(state, now_s)
    assert state.hold is Hold.OPEN


@given(st.lists(st.tuples(st.sampled_from(AliveKey), st.floats(0.001, 10)), max_size=20))
def test_evidence_never_steps_back(reads: list[tuple[AliveKey, float]]) -> None:
    state, now_s = LifeState(fence_s=F), 1.0
    for key, later_s in reads:
        now_s += later_s
        before = state
        state = read(state, now_s, key=key)
        assert state.evidence_at_s >= before.evidence_at_s
        assert state.longest_gap_s >= before.longest_gap_s


@given(st.permutations([(AliveKey.OURS, 1.0), (AliveKey.LOST, 1.2), (AliveKey.OURS, 1.4)]))
def test_the_newest_read_counts_whatever_came_last(reads: list[tuple[AliveKey, float]]) -> None:
    state = LifeState(fence_s=F)
    for key, sent_at_s in reads:
        state = read(state, sent_at_s, 2.0, key=key)
    assert (state.alive, state.evidence_at_s) == (True, 1.4)
