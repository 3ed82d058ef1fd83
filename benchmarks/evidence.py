"""How well a lab (3 hosts, 3 etcd members, 2 APIs) bears the loss of its etcd leader, time and again, under load.

Each round kills the leader, or freezes it for a random 0.5 to 4 s, and waits until all members are well again. Measured
are *gaps*: how old the newest evidence of each guard became (asked from the guards, and as they tell it), and *writes
back*: from the fault until the API acknowledged a write that was begun after it. No guard may fence: every fence is a
false one here. Results are kept in ``--results`` as they come; ``--resume`` goes on with them. ``--outages`` runs what
is in ``outages`` instead. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloud_load import CLOCK, GuardPoll, HistoryTail, Writers, all_well, only_false_fences, wait_for
from outages import run_outages
from ucloud.lab.driver import Lab
from ucloud.lab.telling import LabHistory, wait_recorded

HOSTS = 3
VMS = 6
SHORTEST_FREEZE_S, LONGEST_FREEZE_S = 0.5, 4.0
ROUND_TIMEOUT_S = 60.0
Result = dict[str, Any]


class Session:
    """One lab's life: the rounds, and what its history proves at the end."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.lab = lab
        self._random = random.Random(seed)
        self.writers = Writers(lab)
        self.guards = GuardPoll(lab)
        self._tail = HistoryTail(lab)

    def start(self) -> None:
        self._tail.read()
        self.guards.start()
        self.writers.start()
        wait_for(lambda: self.writers.acked_after(CLOCK.monotonic_s() - 1), "writes are answered", timeout_s=30)

    def one_round(self, number: int) -> Result:
        freezes = number % 2 == 1
        for_s = round(self._random.uniform(SHORTEST_FREEZE_S, LONGEST_FREEZE_S), 2) if freezes else 0.0
        self.guards.forget()
        etcd = self.lab.faults.etcd
        node = etcd.freeze_leader(for_s=for_s).node if freezes else etcd.kill_leader()
        at_s = CLOCK.monotonic_s()
        wait_for(
            lambda: self.writers.all_acked_after(at_s), "all writers are answered again", timeout_s=ROUND_TIMEOUT_S
        )
        wait_for(lambda: all_well(self.lab), "all etcd members are well", timeout_s=ROUND_TIMEOUT_S)
        wait_for(lambda: self.guards.newest_age_s() < 1.0, "all guards have evidence", timeout_s=ROUND_TIMEOUT_S)
        backs = self.writers.backs(at_s)
        told = self._read_told()
        return {
            "round": number,
            "kind": "freeze" if freezes else "kill",
            "node": node,
            "for_s": for_s,
            "writes_back_s": round(min(backs), 3),
            "last_writer_back_s": round(max(backs), 3),
            "gaps_s": {host: max(age_s, told["gaps"].get(host, 0.0)) for host, age_s in self.guards.oldest().items()},
            "fences": told["fences"],
            "ends": told["ends"],
            "load": round(os.getloadavg()[0], 1),
        }

    def _read_told(self) -> Result:
        """What the guards told since the last time; without faults of hosts no VM ends."""
        wait_recorded(self.lab.layout, LabHistory(self.lab.layout))
        gaps: dict[str, float] = {}
        counts: Counter[str] = Counter()
        for event in self._tail.read():
            counts[event["kind"]] += 1
            if event["kind"] == "evidence_gap":
                gaps[event["host"]] = max(gaps.get(event["host"], 0.0), event["gap_s"])
        return {"gaps": gaps, "fences": counts["fence"], "ends": counts["vm_exit"]}

    def end(self) -> Result:
        self.guards.end()
        lost = self.writers.end()
        violations = self.lab.check()
        for violation in violations:
            print(violation, file=sys.stderr)
        return {
            "violations": len(violations),
            "false_fences": only_false_fences(violations),
            "lost_writes": len(lost),
            "writes": self.writers.count,
            "errors": self.writers.errors,
            "longest_gap_s": self.guards.longest_gap_s,
        }


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def summarise(lines: Sequence[Result]) -> Result:
    rounds = [line for line in lines if "round" in line]
    sessions = [line for line in lines if "writes" in line]
    gaps = [gap for line in rounds for gap in line["gaps_s"].values()]
    backs = [line["writes_back_s"] for line in rounds]
    last = [line["last_writer_back_s"] for line in rounds]
    kinds = Counter(line["kind"] for line in rounds)
    told_s = [line["longest_gap_s"] for line in sessions]
    return {
        "kills": kinds["kill"],
        "freezes": kinds["freeze"],
        "max_gap_s": round(max([*gaps, *told_s]), 2),
        "p99_gap_s": round(percentile(gaps, 0.99), 2),
        "p50_gap_s": round(statistics.median(gaps), 2),
        "false_fences": max(sum(line["fences"] for line in rounds), sum(line["false_fences"] for line in sessions)),
        "vm_ends": sum(line["ends"] for line in rounds),
        "writes_back_p50_s": round(statistics.median(backs), 2),
        "writes_back_p99_s": round(percentile(backs, 0.99), 2),
        "last_writer_back_p99_s": round(percentile(last, 0.99), 2),
        "violations": sum(line["violations"] for line in sessions),
        "lost_writes": sum(line["lost_writes"] for line in sessions),
        "writes": sum(line["writes"] for line in sessions),
        "load_p50": statistics.median(line["load"] for line in rounds),
    }


def measure(lab: Lab, arguments: argparse.Namespace) -> Result:
    results: Path = arguments.results
    lines = [json.loads(line) for line in results.read_text().splitlines()] if arguments.resume else []
    done = sum("round" in line for line in lines)
    session = Session(lab, arguments.seed + done)
    with results.open("a" if arguments.resume else "w") as file:

        def keep(line: Result) -> None:
            lines.append(line)
            print(json.dumps(line), file=file, flush=True)
            print(json.dumps(line), flush=True)

        session.start()
        try:
            for number in range(done, arguments.kills):
                keep(session.one_round(number))
        finally:
            keep(session.end())
    return {"fence_s": arguments.fence_s, "seed": arguments.seed, **summarise(lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="rounds: every second one freezes instead")
    parser.add_argument("--fence-s", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1, help="of how long the leader is frozen")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "ucloud-evidence.jsonl")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--outages", action="store_true", help="whole outages of etcd, and of agents, instead")
    parser.add_argument("--apart-s", type=float, default=60.0, help="between members that start one by one")
    parser.add_argument("--keep", action="store_true", help="leave the lab's history and logs")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="uce-", dir="/tmp"))
    directory.chmod(0o711)
    lab = Lab(directory / "lab", say=lambda text: print(text, file=sys.stderr))
    try:
        lab.up(hosts=HOSTS, etcd=3, apis=2, fence_s=arguments.fence_s)
        lab.create_vms(VMS, failover="restart")
        lab.wait_all("running", timeout_s=ROUND_TIMEOUT_S)
        result = run_outages(lab, apart_s=arguments.apart_s) if arguments.outages else measure(lab, arguments)
    finally:
        lab.down(keep=arguments.keep)
        if arguments.keep:
            print(f"history and logs are in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
