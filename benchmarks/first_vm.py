"""How long from an API call to a VM whose QEMU answers, beside the same QEMU command started by hand.

Runs a cloud of its own in a throw-away directory. Each round measures, interleaved: the API path with the network
already on the host, the API path without it (cold), and the bare QEMU. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.e2e.cloud import Cloud

from ucloud.client import Client
from ucloud.client.profile import load_profile
from ucloud.hypervisor.qmp import Qmp

WAIT_S = 60.0


class Bench:
    """One cloud, its client, and the VMs that the rounds make."""

    def __init__(self, directory: Path) -> None:
        self.cloud = Cloud(directory)
        self.cloud.up()
        self.client = Client(load_profile(self.cloud.profile))
        tiny = directory / "tiny.qcow2"
        self.cloud.run("image", "build", "tiny", "--file", tiny, "--directory", directory)
        self.cloud.api("image", "import", tiny, "--name", "tiny")
        self.cloud.make_key()
        self.cloud.api("key", "create", "mine", "--public-key", self.cloud.key.with_suffix(".pub"))
        for name, subnet in (("warm", "10.96.1.0/24"), ("cold", "10.96.2.0/24")):
            self.cloud.api("network", "create", name, "--ipv4-subnet", subnet)

    def create(self, network: str) -> tuple[dict[str, Any], float]:
        """A VM on a network, and the milliseconds until its QEMU answered QMP."""
        body = {
            "name": "bench",
            "image": "tiny",
            "memory_mib": 128,
            "disk_gib": 1,
            "networks": [{"network": network}],
            "keys": ["mine"],
            "stop_timeout_s": 1,
        }
        started = time.monotonic()
        vm = self.client.create("vm", body)
        wait_for_qmp(self.cloud.directory / "run" / "vms" / vm["id"] / "events.sock")
        return vm, (time.monotonic() - started) * 1000

    def delete(self, vm: dict[str, Any]) -> None:
        self.client.delete("vm", vm["id"])
        self.client.wait_gone("vm", vm["id"], WAIT_S)

    def wait_cold(self) -> None:
        """Until the cold network has left the host."""
        tag = self.cloud.tag
        vni = self.client.find("network", "cold")["spec"]["vni"]
        self.cloud.wait(
            lambda: f"ubr{tag}{vni:x}" not in self.cloud.devices(), within_s=WAIT_S, what="the cold network is gone"
        )

    def rss_mib(self, name: str) -> float:
        """Resident memory of a process and those of the same name that it has started."""
        pids = self.cloud.pids_with(f"ucloud {name} --config {self.cloud.directory}/")
        return round(max(read_rss_mib(pid) for pid in pids), 1)


def wait_for_qmp(path: Path) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            with Qmp.connect(path, timeout_s=5.0) as qmp:
                qmp.execute("query-status")
                return
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)


def read_rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def bare_command(cloud: Cloud, vm: dict[str, Any], work: Path) -> list[str]:
    """The command line of a running VM, with descriptors replaced by what a person would write."""
    (pid,) = cloud.qemu_pids()
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    volume = next((cloud.directory / "pool" / "volumes").glob(f"**/*{vm['id']}*"))
    disk = next(path for path in [volume, *volume.rglob("*")] if path.is_file())
    shutil.copy(disk, work / "disk.qcow2")
    by_hand = []
    for word in words:
        word = word.replace(str(disk), str(work / "disk.qcow2"))
        by_hand.append(word)
    return by_hand


def start_bare(words: list[str], work: Path) -> tuple[subprocess.Popen[bytes], float]:
    """The same QEMU from a shell's point of view: sockets by path, the user network in place of a tap."""
    argv = render_bare(words, work)
    (work / "qmp.sock").unlink(missing_ok=True)
    started = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    wait_for_qmp(work / "qmp.sock")
    return process, (time.monotonic() - started) * 1000


def render_bare(words: list[str], work: Path) -> list[str]:
    argv: list[str] = []
    skip = False
    for option, value in zip(words, [*words[1:], ""], strict=True):
        if skip:
            skip = False
            continue
        if option in ("-chardev", "-mon", "-netdev", "-add-fd"):
            skip = True
            if option == "-netdev":
                name = next(part for part in value.split(",") if part.startswith("id="))
                argv += ["-netdev", f"user,{name}"]
            elif option == "-chardev" and "id=serial" in value:
                argv += ["-chardev", f"file,id=serial,path={work / 'serial.log'}"]
            continue
        argv.append(option)
    return [*argv, "-qmp", f"unix:{work / 'qmp.sock'},server=on,wait=off"]


def stop_bare(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def login_seconds(bench: Bench) -> float:
    started = time.monotonic()
    vm, _ = bench.create("warm")
    bench.cloud.ssh(vm, "true")
    seconds = time.monotonic() - started
    bench.delete(vm)
    return seconds


def bare_boot_seconds(words: list[str], work: Path) -> float:
    """Until the guest shows its prompt on the console (without metadata it has no key to let anybody in)."""
    log = work / "serial.log"
    log.unlink(missing_ok=True)
    started = time.monotonic()
    process, _ = start_bare(words, work)
    try:
        while not (log.exists() and b"ucloud-tiny:/#" in log.read_bytes()):
            if time.monotonic() - started > WAIT_S:
                raise SystemExit(f"the bare guest did not boot: {log.read_bytes()[-500:]!r}")
            time.sleep(0.02)
        return time.monotonic() - started
    finally:
        stop_bare(process)


def measure(bench: Bench, work: Path, rounds: int) -> dict[str, Any]:
    warm_times, cold_times, bare_times = [], [], []
    keeper, _ = bench.create("warm")  # holds the warm network on the host
    words = bare_command(bench.cloud, keeper, work)
    for number in range(rounds):
        vm, milliseconds = bench.create("warm")
        warm_times.append(milliseconds)
        bench.delete(vm)
        process, milliseconds = start_bare(words, work)
        bare_times.append(milliseconds)
        stop_bare(process)
        vm, milliseconds = bench.create("cold")
        cold_times.append(milliseconds)
        bench.delete(vm)
        bench.wait_cold()
        print(f"round {number + 1}: warm {warm_times[-1]:.0f} ms, bare {bare_times[-1]:.0f}, cold {cold_times[-1]:.0f}")
    result = {
        "api_to_qemu_ms": round(statistics.median(warm_times), 1),
        "cold_ms": round(statistics.median(cold_times), 1),
        "bare_qemu_ms": round(statistics.median(bare_times), 1),
    }
    result["ratio"] = round(result["api_to_qemu_ms"] / result["bare_qemu_ms"], 2)
    boots = [bare_boot_seconds(words, work) for _ in range(3)]
    logins = [login_seconds(bench) for _ in range(3)]
    result |= {"api_to_ssh_s": round(statistics.median(logins), 2), "bare_boot_s": round(statistics.median(boots), 2)}
    result |= {"agent_rss_mib": bench.rss_mib("agent"), "guard_rss_mib": bench.rss_mib("guard")}
    bench.delete(keeper)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    if os.geteuid() != 0:
        raise SystemExit("run it as root: it starts a cloud")
    directory = Path(tempfile.mkdtemp(prefix="ucb-", dir="/tmp"))
    work = Path(tempfile.mkdtemp(prefix="ucw-", dir="/tmp"))
    bench = None
    try:
        bench = Bench(directory)
        result = measure(bench, work, rounds)
    finally:
        if bench:
            bench.client.close()
            bench.cloud.down(timeout_s=2)
        shutil.rmtree(directory)
        shutil.rmtree(work)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
