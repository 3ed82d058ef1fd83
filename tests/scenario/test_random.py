"""A few hundred random schedules, always the same; ``make scenarios`` runs 10,000."""

from __future__ import annotations

import pytest

from tests.scenario.simulation.schedule import make_schedule, run_schedule

BATCH = 25
FIRST_SEED = 500_000


@pytest.mark.parametrize("batch", range(8))
def test_random_schedules_are_safe(batch: int) -> None:
    for seed in range(FIRST_SEED + batch * BATCH, FIRST_SEED + (batch + 1) * BATCH):
        outcome = run_schedule(make_schedule(seed))
        assert not outcome.violations, f"python -m tests.scenario.random --seed {seed} --count 1 --show"


def test_one_seed_is_one_run() -> None:
    first, second = (run_schedule(make_schedule(7)) for _ in range(2))
    assert first == second
