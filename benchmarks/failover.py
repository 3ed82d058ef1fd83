"""How long from the death of a host until each of its VMs runs elsewhere, in a lab of 4 hosts and 3 etcd members.

Each run makes VMs on one host and kills it: half of the runs power it off, half pull its cable. *detect*: until
``alive/<host>`` is gone. *restart*: until the API says that the VM runs on another host, which its agent says once QMP
does. All the while somebody writes to the API; at the end every acknowledged write must be there, and the history of
the run is checked. ``--leader`` adds runs in which the etcd leader dies together with the host; ``--crowd N`` at last
kills a host with N guests, and starts the same QEMU commands by hand. Results are kept in ``--results`` as they come;
``--resume`` goes on with them. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.first_vm import start_bare, stop_bare

from ucloud.client import Client
from ucloud.errors import Error
from ucloud.lab import census, guest
from ucloud.lab.driver import Lab
from ucloud.lab.telling import LabHistory, read_history
from ucloud.system.clock import SystemClock

HOSTS = 4
RUN_TIMEOUT_S = 60.0
CLOCK = SystemClock()


class Writer(threading.Thread):
    """Makes networks through the API, one after the other, and tells of each that was acknowledged."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(name="writer", daemon=True)
        self._lab = lab
        self._history = LabHistory(lab.layout)
        self._over = threading.Event()
        self.acked: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self._over.wait(0.5):
            number += 1
            try:
                made = self._lab.ask(self._make(f"w{number}"))
            except Error:
                continue
            self.acked.add(made["id"])
            self._history.tell("write_acked", id=made["id"], key=made["name"])

    def end(self) -> set[str]:
        """Stop writing; the ids of acknowledged writes that are not there."""
        self._over.set()
        self.join(30)
        found = {one["id"] for one in self._lab.ask(lambda client: list(client.each("network")))}
        for one in found & self.acked:
            self._history.tell("write_found", id=one)
        return self.acked - found

    @staticmethod
    def _make(name: str) -> Any:
        def work(client: Client) -> dict[str, Any]:
            return client.create("network", {"name": name})

        return work


def fill_host(lab: Lab, host: str, count: int) -> set[str]:
    """Make VMs on this host and wait until they run; the others take none meanwhile."""
    only_here(lab, host)
    made = {vm["id"] for vm in lab.create_vms(count, failover="restart")}
    lab.wait_all("running", timeout_s=RUN_TIMEOUT_S)
    only_here(lab, "")
    return made


def only_here(lab: Lab, host: str) -> None:
    """Let only this host take new VMs; "" for all."""

    def change(client: Client) -> None:
        for one in client.each("host"):
            client.update("host", one["id"], {"schedulable": host in ("", one["id"])})

    lab.ask(change)


def empty(lab: Lab) -> None:
    def delete(client: Client) -> list[str]:
        ids = [vm["id"] for vm in client.each("vm")]
        for vm_id in ids:
            client.delete("vm", vm_id)
        return ids

    gone = lab.ask(delete, timeout_s=30.0)
    lab.wait(lambda: not set(gone) & {vm["id"] for vm in lab.vms()}, "the VMs are gone", timeout_s=RUN_TIMEOUT_S)


def one_run(lab: Lab, number: int, *, vms: int, leader: bool) -> dict[str, Any]:
    """Fill a host, kill it, measure, and bring it back."""
    host = f"h{number // 2 % HOSTS + 1}"
    lost = fill_host(lab, host, vms)
    kind = "power_off" if number % 2 == 0 else "cut"
    began_s = CLOCK.monotonic_s()
    if leader:
        lab.faults.etcd.kill_leader()
    if kind == "power_off":
        lab.faults.power_off(host)
    else:
        lab.faults.cut(host)
    restart_s = wait_back(lab, lost, host, began_s)
    detect_s = detected_s(lab, host, began_s) - began_s
    lab.faults.heal()
    if kind == "power_off":
        lab.faults.power_on(host)
    lab.wait_host(host, "ready", timeout_s=RUN_TIMEOUT_S)
    empty(lab)
    return {
        "kind": kind,
        "host": host,
        "leader": leader,
        "detect_s": round(detect_s, 3),
        "restart_s": restart_s,
        "false_fences": count_fences(lab, since_s=began_s, but=host),
    }


def count_fences(lab: Lab, *, since_s: float, but: str) -> int:
    """Of hosts to which nothing was done."""
    events = (event for event in read_history(lab.layout.history) if event["at_s"] >= since_s)
    return sum(event["kind"] == "fence" and event["host"] != but for event in events)


def wait_back(lab: Lab, lost: set[str], host: str, began_s: float) -> list[float]:
    """The seconds until each of the VMs was seen running on another host."""
    back: dict[str, float] = {}
    while lost - back.keys():
        if CLOCK.monotonic_s() - began_s > RUN_TIMEOUT_S:
            raise SystemExit(f"{sorted(lost - back.keys())} did not come back")
        time.sleep(0.03)
        try:
            vms = lab.vms()
        except Error:
            continue
        seconds = round(CLOCK.monotonic_s() - began_s, 3)
        running = {vm["id"] for vm in vms if is_running(vm) and vm["status"]["host_id"] != host}
        back |= dict.fromkeys((lost & running) - back.keys(), seconds)
    return list(back.values())


def is_running(vm: dict[str, Any]) -> bool:
    return bool(vm["status"]["word"] == "running")


def detected_s(lab: Lab, host: str, began_s: float) -> float:
    for event in read_history(lab.layout.history):
        gone = event["kind"] == "store_delete" and event["key"].endswith(f"/alive/{host}")
        if gone and event["at_s"] >= began_s:
            return float(event["at_s"])
    return math.nan


def crowd(lab: Lab, count: int, work: Path) -> dict[str, Any]:
    """One host with many guests dies; then the same commands by hand, four at a time, until QMP answers."""
    lost = fill_host(lab, "h1", count)
    commands = qemu_commands(lab, "h1")
    assert len(commands) == count
    began_s = CLOCK.monotonic_s()
    lab.faults.power_off("h1")
    last_s = max(wait_back(lab, lost, "h1", began_s))
    marked_s = marked_at_s(lab, "h1", began_s) - began_s
    empty(lab)
    began_s = CLOCK.monotonic_s()
    with ThreadPoolExecutor(4) as pool:
        processes = list(pool.map(lambda one: start_by_hand(*one, work), enumerate(commands)))
    by_hand_s = CLOCK.monotonic_s() - began_s
    for process in processes:
        stop_bare(process)
    lab.faults.power_on("h1")
    return {
        "guests": count,
        "marked_s": round(marked_s, 2),
        "all_back_s": round(last_s, 2),
        "by_hand_s": round(by_hand_s, 2),
        "ratio": round((last_s - marked_s) / by_hand_s, 2),
    }


def qemu_commands(lab: Lab, host: str) -> list[list[str]]:
    residents = census.residents(census.namespaces_of((lab.shape.node(host),)))
    pids = [one.pid for one in residents if one.name.startswith("qemu")]
    return [Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1] for pid in pids]


def start_by_hand(number: int, words: list[str], work: Path) -> subprocess.Popen[bytes]:
    """On an empty disk of its own: the guest's matters to nobody, for it only halts."""
    own = work / str(number)
    own.mkdir()
    disk = own / "disk.raw"
    disk.write_bytes(guest.halting_disk())
    node = json.dumps({"driver": "raw", "node-name": "root-0", "file": {"driver": "file", "filename": str(disk)}})
    without = [word for place, word in enumerate(words) if "-blockdev" not in (word, words[max(place - 1, 0)])]
    return start_bare([*without[:1], "-blockdev", node, *without[1:]], own)[0]


def marked_at_s(lab: Lab, host: str, began_s: float) -> float:
    for event in read_history(lab.layout.history):
        if event["kind"] == "takeover_done" and event["host"] == host and event["at_s"] >= began_s:
            return float(event["at_s"])
    return math.nan


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    detect = [run["detect_s"] for run in runs]
    restart = [seconds for run in runs for seconds in run["restart_s"]]
    return {
        "runs": len(runs),
        "vms": len(restart),
        "detect_p50_s": round(statistics.median(detect), 2),
        "detect_p99_s": round(percentile(detect, 0.99), 2),
        "restart_p50_s": round(statistics.median(restart), 2),
        "restart_p99_s": round(percentile(restart, 0.99), 2),
    }


def measure(lab: Lab, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    results: Path = arguments.results
    runs = [json.loads(line) for line in results.read_text().splitlines()] if arguments.resume else []
    writer = Writer(lab)
    writer.start()
    with results.open("a" if arguments.resume else "w") as file:
        for number in range(len(runs), arguments.runs + arguments.leader):
            run = one_run(lab, number, vms=arguments.vms, leader=number >= arguments.runs)
            runs.append(run)
            print(json.dumps(run), file=file, flush=True)
            print(
                f"run {number}: {run['kind']} {run['host']}: {run['detect_s']} s, {max(run['restart_s'])} s", flush=True
            )
    crowded = crowd(lab, arguments.crowd, work) if arguments.crowd else {}
    lost_writes = writer.end()
    violations = lab.check()
    for violation in violations:
        print(violation, file=sys.stderr)
    kinds = Counter(violation.kind.value for violation in violations)
    result = summarise([run for run in runs if not run["leader"]])
    if arguments.leader:
        result["with_etcd_leader"] = summarise([run for run in runs if run["leader"]])
    return {
        "fence_s": arguments.fence_s,
        **result,
        **({"crowd": crowded} if crowded else {}),
        "overlaps": kinds["overlap"],
        "violations": len(violations),
        "writes": len(writer.acked),
        "lost_writes": len(lost_writes),
        "false_fences": sum(run["false_fences"] for run in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--leader", type=int, default=0, metavar="N", help="further runs with the etcd leader's death")
    parser.add_argument("--crowd", type=int, default=0, metavar="N", help="at last a host with N guests")
    parser.add_argument("--vms", type=int, default=8, help="on the host that dies")
    parser.add_argument("--fence-s", type=float, default=3.0)
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "ucloud-failover.jsonl")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="ucf-", dir="/tmp"))
    directory.chmod(0o711)
    lab = Lab(directory / "lab", say=lambda text: print(text, file=sys.stderr))
    try:
        lab.up(hosts=HOSTS, etcd=3, apis=2, fence_s=arguments.fence_s)
        result = measure(lab, arguments, directory)
    finally:
        lab.down()
        shutil.rmtree(directory)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
