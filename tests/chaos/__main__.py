"""``python -m tests.chaos``: random faults in a lab of real hosts, each schedule checked for safety and for an end.

A seed is a schedule: ``--seed 7 --schedules 1`` plays one again. The lab (4 hosts, 3 etcd members, 2 APIs) stays up
from one to the next. ``--resume`` goes on after the last seed that was done. A
schedule that goes wrong leaves its part of the history and all logs in ``--directory``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.play import Result, Stage
from tests.chaos.schedule import APIS, ETCD, HOSTS, make_schedule
from ucloud.errors import Error
from ucloud.lab.driver import Lab
from ucloud.lab.nodes import PoolKind


def main() -> int:
    arguments = _parse()
    place: Path = arguments.directory
    place.mkdir(mode=0o711, exist_ok=True)
    results = place / "results.jsonl"
    done = _read_results(results) if arguments.resume else []
    lab = Lab(place / "lab", say=lambda text: print(text, file=sys.stderr))
    if lab.layout.shape_file.exists():
        lab.down()
    failed = 0
    try:
        _up(lab, arguments)
        failed = _play_all(lab, arguments, results, done)
    finally:
        if not arguments.keep:
            lab.down()
    return 1 if failed else 0


def _up(lab: Lab, arguments: argparse.Namespace) -> None:
    lab.up(
        hosts=HOSTS,
        etcd=ETCD,
        apis=APIS,
        fence_s=arguments.fence_s,
        pool=PoolKind(arguments.pool),
        timeout_s=180.0,
    )


def _play_all(lab: Lab, arguments: argparse.Namespace, results: Path, done: list[dict[str, object]]) -> int:
    first = max([arguments.seed, *(int(str(one["seed"])) + 1 for one in done)])
    last = arguments.seed + arguments.schedules - 1 if arguments.schedules else sys.maxsize
    until_s = time.monotonic() + 60 * arguments.minutes if arguments.minutes else float("inf")
    stage, failed, seed = Stage(lab, results.parent), 0, first
    with results.open("a" if arguments.resume else "w") as file:
        while seed <= last and time.monotonic() < until_s:
            result = stage.play(make_schedule(seed))
            print(json.dumps(result.plain()), file=file, flush=True)
            _say(result, arguments)
            failed += bool(result.wrong)
            if result.wrong and arguments.stop:
                break
            if result.wrong:  # what is wrong now shall not be blamed on the next one
                stage = _anew(lab, arguments, results.parent)
            seed += 1
    print(f"{seed - first} schedules, seeds {first} to {seed - 1}, {failed} went wrong")
    return failed


def _anew(lab: Lab, arguments: argparse.Namespace, kept: Path) -> Stage:
    lab.down()
    _up(lab, arguments)
    return Stage(lab, kept)


def _say(result: Result, arguments: argparse.Namespace) -> None:
    print(result.line, flush=True)
    for text in result.wrong[1:]:
        print(f"  {text}")
    for text in result.unfounded_fences:
        print(f"  without a reason in this schedule: {text}")
    if result.wrong:
        pool = "" if arguments.pool == PoolKind.DIRECTORY.value else f" --pool {arguments.pool}"
        print(f"  again: python -m tests.chaos --seed {result.seed} --schedules 1{pool}", flush=True)


def _read_results(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule; chosen if it is not given")
    parser.add_argument("--schedules", type=int, default=0, metavar="N", help="how many; 0 for no limit")
    parser.add_argument("--minutes", type=float, default=0.0, metavar="M", help="begin none after so long")
    parser.add_argument("--resume", action="store_true", help="go on after the last one that was done")
    parser.add_argument("--stop", action="store_true", help="at the first that goes wrong")
    parser.add_argument("--keep", action="store_true", help="leave the lab up at the end")
    parser.add_argument("--fence-s", type=float, default=2.25)
    parser.add_argument("--pool", choices=("directory", "fenced"), default="directory")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()) / "ucloud-chaos")
    arguments = parser.parse_args()
    arguments.seed = arguments.seed or int(time.time()) % 1_000_000 * 1000
    if not arguments.schedules and not arguments.minutes:
        arguments.schedules = 60
    return arguments


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Error as error:
        sys.exit(error.message)
