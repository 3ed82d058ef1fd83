"""``python -m tests.scenario.random``: random schedules of faults on the simulated cloud, each checked for safety.

A seed is a schedule: ``--seed 7 --count 1 --show`` plays one again, with its log. ``--resume`` goes on after the last
seed that was done (kept in the file ``--state`` until all are).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.scenario.simulation.schedule import Outcome, Schedule, make_schedule, run_schedule

_TELL_EVERY_S = 10.0


def main() -> int:
    arguments = _parse()
    state = Path(arguments.state)
    first = arguments.seed
    if arguments.resume and state.exists():
        first = max(first, int(state.read_text()) + 1)
    last = arguments.seed + arguments.count - 1
    print(f"seeds {first} to {last}")
    failed, stray, takeovers, moves, told_s, began_s = 0, 0, 0, 0, time.monotonic(), time.monotonic()
    for seed in range(first, last + 1):
        schedule = make_schedule(seed)
        outcome = run_schedule(schedule)
        takeovers, moves, stray = takeovers + outcome.takeovers, moves + outcome.moves, stray + bool(outcome.stray)
        if outcome.violations or (outcome.stray and arguments.stray) or arguments.show:
            failed += bool(outcome.violations)
            print_outcome(schedule, outcome)
        if time.monotonic() - told_s > _TELL_EVERY_S or seed == last:
            told_s = time.monotonic()
            state.write_text(str(seed))
            done = seed - first + 1
            each_ms = 1000 * (told_s - began_s) / done
            safety = f"{failed} unsafe, {stray} unsettled"
            print(f"{done} schedules, {safety}, {takeovers} takeovers, {moves} migrations, {each_ms:.0f} ms each")
            sys.stdout.flush()
    state.unlink(missing_ok=True)  # done: the next run begins anew
    return 1 if failed else 0


def print_outcome(schedule: Schedule, outcome: Outcome) -> None:
    print(f"seed {schedule.seed}: {schedule.plan}")
    for at_s, line in outcome.log:
        print(f"{at_s:8.3f} {line}")
    for violation in outcome.violations:
        print(f"UNSAFE {violation}")
    if outcome.stray:
        print(f"UNSETTLED {', '.join(outcome.stray)}")
    print(f"again: python -m tests.scenario.random --seed {schedule.seed} --count 1 --show")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.scenario.random", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--resume", action="store_true", help="go on after the last seed that was done")
    parser.add_argument("--state", default=".scenario-seed", help="where the last seed is kept")
    parser.add_argument("--show", action="store_true", help="print every log")
    parser.add_argument("--stray", action="store_true", help="print also those after which a VM does not run once")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
