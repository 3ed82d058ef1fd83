"""Schedules of faults are drawn from their seed alone."""

from __future__ import annotations

from tests.chaos.deeds import ASKS, FAULTS
from tests.chaos.schedule import MOST_VMS, make_schedule


def test_a_seed_is_a_schedule() -> None:
    assert make_schedule(7) == make_schedule(7)
    assert make_schedule(7) != make_schedule(8)


def test_schedules_are_within_their_limits_and_draw_all_kinds() -> None:
    kinds = set()
    for seed in range(500):
        schedule = make_schedule(seed)
        faults = [deed for deed in schedule.deeds if deed.kind in FAULTS]
        assert 2 <= len(faults) <= 4
        assert schedule.restart + schedule.none <= MOST_VMS
        assert schedule.restart and schedule.none
        assert list(schedule.deeds) == sorted(schedule.deeds, key=lambda deed: deed.at_s)
        kinds |= {deed.kind for deed in schedule.deeds}
    assert kinds == {*FAULTS, *ASKS}
