"""When the guard registers, renews, or starts nothing more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.guard.rules import AliveKey, LifeState, Step, next_step, see

LIVING = LifeState(registered=True, alive=True, evidence_at_s=100.0)


def test_a_read_that_shows_our_key_is_evidence_from_when_it_was_sent() -> None:
    state = see(LifeState(), AliveKey.OURS, fenced=False, sent_at_s=5.0)
    assert (state.alive, state.registered, state.evidence_at_s, state.longest_gap_s) == (True, True, 5.0, 0.0)
    state = see(see(state, AliveKey.OURS, fenced=False, sent_at_s=7.5), AliveKey.OURS, fenced=False, sent_at_s=8.0)
    assert (state.evidence_at_s, state.longest_gap_s) == (8.0, 2.5)
    assert state.evidence_age_s(9.0) == 1.0
    assert LifeState().evidence_age_s(9.0) == -1.0


def test_a_lost_key_is_no_evidence_and_is_made_again() -> None:
    state = see(LIVING, AliveKey.LOST, fenced=False, sent_at_s=101.0)
    assert (state.alive, state.evidence_at_s, state.fenced, state.replaced) == (False, 100.0, False, False)
    assert next_step(state, AliveKey.LOST) is Step.REGISTER


@pytest.mark.parametrize("key", list(AliveKey))
def test_a_fenced_guard_does_nothing_more(key: AliveKey) -> None:
    state = see(LIVING, key, fenced=True, sent_at_s=101.0)
    assert next_step(state, key) is Step.YIELD
    assert next_step(see(state, AliveKey.OURS, fenced=False, sent_at_s=102.0), AliveKey.OURS) is Step.YIELD


def test_a_new_guard_takes_the_place_of_its_predecessor() -> None:
    state = see(LifeState(), AliveKey.FOREIGN, fenced=False, sent_at_s=1.0)
    assert next_step(state, AliveKey.FOREIGN) is Step.REGISTER


def test_a_guard_that_was_replaced_yields() -> None:
    state = see(LIVING, AliveKey.FOREIGN, fenced=False, sent_at_s=101.0)
    assert state.replaced
    assert next_step(state, AliveKey.FOREIGN) is Step.YIELD


@given(st.lists(st.tuples(st.sampled_from(AliveKey), st.floats(0.001, 10)), max_size=20))
def test_evidence_never_steps_back(reads: list[tuple[AliveKey, float]]) -> None:
    state, now_s = LifeState(), 1.0
    for key, later_s in reads:
        now_s += later_s
        before = state
        state = see(state, key, fenced=False, sent_at_s=now_s)
        assert state.evidence_at_s >= before.evidence_at_s
        assert state.alive == (key is AliveKey.OURS)
        assert state.longest_gap_s >= before.longest_gap_s
