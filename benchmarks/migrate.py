"""How long a guest is not heard while it moves to another host, beside the same QEMU command migrated by hand.

A lab of 3 hosts, 3 etcd members and one API. A tiny guest is pinged every 10 ms, from a device in its network on a
third host, while it goes back and forth between the two others. In the same run, one after the other with that, a
guest of the same command line goes from one QEMU to another on a bridge of its own, told by QMP alone. *gap*: the
longest time between two answers, less the interval. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import secrets
import select
import shutil
import socket
import statistics
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ucloud.client import Client
from ucloud.compose.parts import DOWNTIME_MS
from ucloud.errors import Error
from ucloud.hypervisor.qmp import Qmp
from ucloud.lab.driver import Lab
from ucloud.lab.telling import read_history
from ucloud.local.image_build import build_tiny
from ucloud.model import devices
from ucloud.system.clock import SystemClock
from ucloud.system.namespace import ensure_namespace, in_namespace, remove_namespace
from ucloud.system.run import Process, run, spawn

INTERVAL_S = 0.01
SETTLE_S = 1.0  # pinged before a migration begins, and after it has ended
WAIT_S = 60.0
STEPS = ("silent", "vm_paused", "moved", "vm_resume", "heard")
_ECHO_REQUEST, _ECHO_REPLY = 128, 129
_SO_TIMESTAMPNS = 35
_LOAD_BYTES = 16
_PORT = "ping"


@dataclass
class Pinger:
    """Pings a link-local address from a device in a namespace, until ``stop``; times are the kernel's."""

    namespace: str
    address: str
    sent: int = 0
    heard: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: in_namespace(self.namespace, self._run), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """When the guest answers again, and a while after that."""
        asked = self.sent
        wait(lambda: max(self.heard, default=0) > asked, f"{self.address} answers again")
        time.sleep(SETTLE_S)
        self._over.set()
        self._thread.join()

    @property
    def silence(self) -> tuple[float, float]:
        """From which answer to which it was the longest, by the recorder's clock."""
        times = sorted(self.heard.values())
        earlier, later = max(itertools.pairwise(times), key=lambda pair: pair[1] - pair[0])
        behind_s = time.time() - SystemClock().monotonic_s()
        return earlier - behind_s, later - behind_s

    @property
    def gap_ms(self) -> float:
        earlier, later = self.silence
        return max(later - earlier - INTERVAL_S, 0.0) * 1000

    @property
    def lost(self) -> int:
        return self.sent - len(self.heard)

    def _run(self) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as door:
            door.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            place = (self.address, 0, 0, socket.if_nametoindex(_PORT))
            next_s = time.monotonic()
            while not self._over.is_set():
                if (now_s := time.monotonic()) >= next_s:
                    self.sent += 1
                    door.sendto(struct.pack("!BBHHH8x", _ECHO_REQUEST, 0, 0, 7, self.sent & 0xFFFF), place)
                    next_s = max(next_s + INTERVAL_S, now_s - INTERVAL_S)
                self._hear(door, max(next_s - time.monotonic(), 0.0))

    def _hear(self, door: socket.socket, timeout_s: float) -> None:
        if not select.select([door], [], [], timeout_s)[0]:
            return
        data, told, _, _ = door.recvmsg(2000, 128)
        if data[0] != _ECHO_REPLY:
            return
        (number,) = struct.unpack_from("!H", data, 6)
        seconds, nanoseconds = struct.unpack("@qq", told[0][2][:_LOAD_BYTES])
        self.heard.setdefault(number, seconds + nanoseconds / 1e9)


def wait(condition: Callable[[], Any], what: str) -> Any:
    deadline_s = time.monotonic() + WAIT_S
    while not (found := condition()):
        if time.monotonic() > deadline_s:
            raise SystemExit(f"failed to see in {WAIT_S:g} s that {what}")
        time.sleep(0.01)
    return found


def answers(namespace: str, address: str) -> bool:
    words = ("ping", "-6", "-q", "-c", "1", "-W", "1", f"{address}%{_PORT}")
    return in_namespace(namespace, lambda: run(words, check=False).exit_code == 0)


@contextmanager
def ping_port(namespace: str, bridge_namespace: str, bridge: str) -> Iterator[None]:
    """A namespace of that name with a device ``ping`` that is a port of a bridge."""
    ensure_namespace(namespace)
    other = f"ub{secrets.token_hex(4)}"
    try:
        ip(bridge_namespace, "link", "add", other, "type", "veth", "peer", "name", _PORT, "netns", namespace)
        ip(bridge_namespace, "link", "set", other, "mtu", "1400", "master", bridge, "up")
        ip(namespace, "link", "set", _PORT, "mtu", "1400", "up")
        yield
    finally:
        remove_namespace(namespace)


def ip(namespace: str, *words: str) -> None:
    in_namespace(namespace, lambda: run(("ip", *words)))


# The cloud's


class Moves:
    """The guest in the lab, and the port from which it is pinged."""

    def __init__(self, lab: Lab, image: Path, stack: ExitStack) -> None:
        self._lab = lab
        lab.ensure_basics()
        lab.ask(lambda client: client.upload_image(image, {"name": "tiny"}), timeout_s=30.0)
        only_here(lab, "h3")
        lab.create_vms(1, prefix="keeper")  # so that its host has the network
        only_here(lab, "h1")
        self.vm = lab.ask(lambda client: client.create("vm", vm_body()))
        lab.wait_all("running")
        only_here(lab, "")
        (nic,) = self.vm["spec"]["nics"]
        self.address = devices.link_local_of(nic["mac"])
        self.namespace = f"ucb-{secrets.token_hex(3)}"
        host = lab.shape.node("h3")
        vni = lab.ask(lambda client: client.find("network", "main"))["spec"]["vni"]
        bridge = devices.network_devices(host.tag, vni).bridge
        stack.enter_context(ping_port(self.namespace, host.namespace, bridge))
        wait(lambda: answers(self.namespace, self.address), "the guest in the lab answers")

    def command(self) -> list[str]:
        """Of the QEMU that runs the guest."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().decode(errors="replace").split("\0")[:-1]
            except OSError:
                continue
            if words and "qemu-system" in words[0] and any(f"/{self.vm['id']}/" in word for word in words):
                return words
        raise SystemExit("the guest's QEMU was not found")

    def move(self) -> dict[str, Any]:
        """To the other one of the two hosts."""
        vm_id = self.vm["id"]
        source = self._lab.vm(vm_id)["status"]["host_id"]
        target = "h2" if source == "h1" else "h1"
        pinger = Pinger(self.namespace, self.address)
        time.sleep(SETTLE_S)
        began_s = time.monotonic()

        def work(client: Client) -> dict[str, Any]:
            client.act(vm_id, "migrate", {"to_host": target})
            return client.wait_migrated(vm_id, WAIT_S)

        done = self._lab.ask(work)
        total_s = time.monotonic() - began_s
        pinger.stop()
        self._lab.wait_all("running")
        return {
            "total_s": round(total_s, 3),
            "gap_ms": round(pinger.gap_ms, 1),
            "lost_pings": pinger.lost,
            "qemu_downtime_ms": done["record"]["downtime_ms"],
            **self._steps(*pinger.silence),
        }

    def _steps(self, silent_s: float, heard_s: float) -> dict[str, float]:
        """Where the time of the silence went: from one of STEPS to the next."""
        seen = {"silent": silent_s, "heard": heard_s}
        for event in read_history(self._lab.layout.history):
            if event["kind"] in STEPS and event.get("vm") == self.vm["id"]:
                seen[event["kind"]] = float(event["at_s"])
        pairs = itertools.pairwise(STEPS)
        return {f"{one}_to_{two}_ms": round((seen[two] - seen[one]) * 1000, 1) for one, two in pairs}


def vm_body() -> dict[str, Any]:
    return {
        "name": "moving",
        "image": "tiny",
        "memory_mib": 128,
        "disk_gib": 1,
        "networks": [{"network": "main"}],
        "failover": "restart",
        "stop_timeout_s": 1,
    }


def only_here(lab: Lab, host: str) -> None:
    """Let only this host take new VMs; "" for all."""

    def change(client: Client) -> None:
        for one in client.each("host"):
            client.update("host", one["id"], {"schedulable": host in ("", one["id"])})

    lab.ask(change)


# By hand


class Bare:
    """The same command line on a bridge in a namespace: two sides, one of which runs the guest."""

    def __init__(self, words: list[str], address: str, work: Path, stack: ExitStack) -> None:
        self._words, self._work = words, work
        self._bridge = f"ucb-{secrets.token_hex(3)}"
        self._running = ""
        self._processes: dict[str, Process] = {}
        self.namespace, self.address = f"ucb-{secrets.token_hex(3)}", address
        ensure_namespace(self._bridge)
        stack.callback(remove_namespace, self._bridge)
        ip(self._bridge, "link", "add", "br0", "mtu", "1400", "type", "bridge", "mcast_snooping", "0")
        ip(self._bridge, "link", "set", "br0", "up")
        stack.enter_context(ping_port(self.namespace, self._bridge, "br0"))
        stack.callback(self._end_all)
        self._start("a")
        self._running = "a"
        wait(lambda: answers(self.namespace, self.address), "the guest by hand answers")

    def move(self) -> dict[str, Any]:
        source, target = self._running, "b" if self._running == "a" else "a"
        stream = self._work / "stream.sock"
        self._start(target, incoming=f"unix:{stream}")
        pinger = Pinger(self.namespace, self.address)
        time.sleep(SETTLE_S)
        with Qmp.connect(self._qmp(source)) as qmp:
            states = [{"capability": "return-path", "state": True}, {"capability": "auto-converge", "state": True}]
            qmp.execute("migrate-set-capabilities", {"capabilities": states})
            qmp.execute("migrate-set-parameters", {"max-bandwidth": 1 << 50, "downtime-limit": DOWNTIME_MS})
            qmp.execute("migrate", {"uri": f"unix:{stream}"})
            done = wait(lambda: self._migrated(qmp), "QEMU has sent the guest")
        pinger.stop()
        self._end(source)
        self._running = target
        return {"bare_gap_ms": round(pinger.gap_ms, 1), "bare_downtime_ms": done["downtime"], "bare_lost": pinger.lost}

    @staticmethod
    def _migrated(qmp: Qmp) -> Any:
        answer = qmp.execute("query-migrate")
        if answer["status"] == "failed":
            raise SystemExit(f"the migration by hand failed: {answer}")
        return answer if answer["status"] == "completed" and answer.get("downtime") else None

    def _qmp(self, side: str) -> Path:
        return self._work / side / "qmp.sock"

    def _start(self, side: str, *, incoming: str = "") -> None:
        own = self._work / side
        own.mkdir(exist_ok=True)
        self._qmp(side).unlink(missing_ok=True)
        ip(self._bridge, "tuntap", "add", f"t{side}", "mode", "tap")
        ip(self._bridge, "link", "set", f"t{side}", "mtu", "1400", "master", "br0", "up")
        argv = self._render(side, own) + (["-incoming", incoming] if incoming else [])
        with (own / "out").open("ab") as output:
            self._processes[side] = in_namespace(self._bridge, lambda: spawn(argv, log=output.fileno()))
        wait(lambda: self._is_up(side), f"QEMU answers: {(own / 'out').read_text()[-300:]}")

    def _is_up(self, side: str) -> bool:
        if self._processes[side].poll() is not None:
            raise SystemExit(f"QEMU by hand ended: {(self._work / side / 'out').read_text()[-500:]}")
        try:
            with Qmp.connect(self._qmp(side)) as qmp:
                qmp.execute("query-status")
        except Error:
            return False
        return True

    def _render(self, side: str, own: Path) -> list[str]:
        """Descriptors are replaced by what a person would write; the disk is a copy that both sides use."""
        argv: list[str] = []
        pairs = iter(self._words)
        for word in pairs:
            if word in ("-S", "-daemonize"):
                continue
            if word not in ("-chardev", "-mon", "-netdev", "-add-fd", "-incoming", "-blockdev"):
                argv.append(word)
                continue
            value = next(pairs)
            if word == "-netdev":
                name = next(part for part in value.split(",") if part.startswith("id="))
                argv += [word, f"tap,{name},ifname=t{side},script=no,downscript=no"]
            elif word == "-chardev" and "id=serial" in value:
                argv += [word, f"file,id=serial,path={own / 'serial.log'}"]
            elif word == "-blockdev":
                argv += [word, self._with_copy(value)]
        return [*argv, "-qmp", f"unix:{self._qmp(side)},server=on,wait=off"]

    def _with_copy(self, value: str) -> str:
        plain = json.loads(value)
        if plain["read-only"]:
            return value
        disk, copy = Path(plain["file"]["filename"]), self._work / "disk.qcow2"
        if not copy.exists():
            shutil.copy(disk, copy)
        return value.replace(str(disk), str(copy))

    def _end(self, side: str) -> None:
        process = self._processes.pop(side)
        process.kill()
        process.wait()
        ip(self._bridge, "link", "del", f"t{side}")

    def _end_all(self) -> None:
        for side in tuple(self._processes):
            self._end(side)


# Both


def measure(lab: Lab, work: Path, pairs: int) -> dict[str, Any]:
    image = build_tiny(work / "tiny.qcow2", work_directory=work / "build", progress=lambda text: None)
    with ExitStack() as stack:
        moves = Moves(lab, image.path, stack)
        bare = Bare(moves.command(), moves.address, work, stack)
        rounds = []
        for number in range(pairs):
            rounds.append({**bare.move(), **moves.move()})
            print(f"pair {number + 1}: {json.dumps(rounds[-1])}", flush=True)
        violations = lab.check()
    for violation in violations:
        print(violation, file=sys.stderr)
    result: dict[str, Any] = {
        name: round(statistics.median(one[name] for one in rounds), 3)
        for name in ("total_s", "gap_ms", "bare_gap_ms", "qemu_downtime_ms", "bare_downtime_ms", "lost_pings")
    }
    return {**result, "pairs": pairs, "violations": len(violations)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    if os.geteuid() != 0:
        raise SystemExit("run it as root: it starts a lab")
    directory = Path(tempfile.mkdtemp(prefix="ucm-", dir="/tmp"))
    directory.chmod(0o711)
    lab = Lab(directory / "lab", say=lambda text: print(text, file=sys.stderr))
    try:
        lab.up(hosts=3, etcd=3, apis=1)
        result = measure(lab, directory, pairs)
    finally:
        lab.down()
        shutil.rmtree(directory)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
