"""A whole simulated cloud and its history: what a scenario or a random schedule acts on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.scenario.simulation.engine import Engine, Place
from tests.scenario.simulation.etcd import Cluster
from tests.scenario.simulation.host import SimulatedHost
from tests.scenario.simulation.network import Network
from tests.scenario.simulation.qemu import Disks
from tests.scenario.simulation.scheduler import Scheduler
from tests.scenario.simulation.switches import ALL_ON, Rules
from tests.scenario.simulation.watcher import Hub, value_of
from tests.scenario.simulation.writes import tell_found
from tests.unit import samples
from ucloud.config import SchedulerSection
from ucloud.lab.checker import Violation, check_history
from ucloud.model.guard import Members, Voter
from ucloud.model.host import Host, HostSpec
from ucloud.model.meta import Meta
from ucloud.model.placement import Decision, Placement
from ucloud.model.seen import Fence, SeenHost, SeenPool
from ucloud.model.vm import Failover, Vm
from ucloud.store import keys
from ucloud.store.api import Item, Put
from ucloud.store.codec import encode

POOL = "pool-1"
_TOLD_KEYS = (keys.locks(), keys.placements(), keys.alive_all(), keys.fenced_all())


@dataclass(frozen=True)
class VmPlan:
    """``host`` "" leaves it to the scheduler."""

    id: str
    host: str = ""
    failover: Failover = Failover.RESTART
    memory_mib: int = 512


@dataclass(frozen=True)
class Plan:
    """What a cloud is made of. ``schedulers`` are the machines that run one: their own, or hosts."""

    hosts: int = 4
    etcd: int = 3
    schedulers: tuple[str, ...] = ("c1", "c2")
    vms: tuple[VmPlan, ...] = ()
    fence_s: float = 3.0
    kill_s: float = 0.25
    pool_fence: Fence = Fence.LOCK
    second_line: bool = True
    linger_s: float = 0.0
    host_memory_mib: int = 8192
    failover_share_percent: int = 34
    migration_timeout_s: int = 30
    rules: Rules = field(default=ALL_ON)


class Cloud:
    """``history`` is what the checker reads; ``log`` what people read: (time, line)."""

    def __init__(self, plan: Plan, seed: int, *, jitter: bool = True) -> None:
        logging.disable(logging.CRITICAL)  # passes are run again from their start at each answer
        self.plan = plan
        self.rules = plan.rules
        self.engine = Engine(seed, jitter=jitter)
        self.history: list[dict[str, Any]] = []
        self.log: list[tuple[float, str]] = []
        self.last_alive: dict[str, Item] = {}
        self.settings = SchedulerSection(
            failover_share_percent=plan.failover_share_percent, migration_timeout_s=plan.migration_timeout_s
        )
        self.vms = [vm.id for vm in plan.vms]
        self._pids = 100
        self._refused: dict[tuple[str, str], str] = {}
        self.network = Network(self.engine)
        self.etcd_machines = {f"e{number}": Place(f"e{number}") for number in range(1, plan.etcd + 1)}
        self.cluster = Cluster(self.engine, self.network, self.etcd_machines)
        self.cluster.tell = self.say
        self.hub = Hub(self.cluster)
        self.hub.tell_store = self._store_changed
        self.disks = Disks(
            self.engine, self.tell, plan.pool_fence if plan.second_line else Fence.NONE, linger_s=plan.linger_s
        )
        self.hosts: dict[str, SimulatedHost] = {}
        self._fill()
        for number in range(1, plan.hosts + 1):
            name = f"h{number}"
            self.hosts[name] = SimulatedHost(self, name, fence_s=plan.fence_s, kill_s=plan.kill_s)
        self.schedulers: dict[str, Scheduler] = {}
        for name in plan.schedulers:
            self.start_scheduler(name)

    def next_pid(self) -> int:
        self._pids += 1
        return self._pids

    def start_scheduler(self, name: str) -> None:
        machine = self.hosts[name].machine if name in self.hosts else Place(name)
        self.schedulers[name] = Scheduler(self, name, machine)

    # The store as people filled it

    def _fill(self) -> None:
        plan = self.plan
        voters = tuple(Voter(name, str(index), f"https://{name}:1") for index, name in enumerate(self.etcd_machines))
        values: list[tuple[str, Any]] = [
            (keys.members(), Members("cluster", 1, voters)),
            (keys.spec("image", "image-1"), samples.IMAGE),
        ]
        names = [f"h{number}" for number in range(1, plan.hosts + 1)]
        for name in names:
            values.append((keys.spec("host", name), Host(_meta(name), HostSpec())))
            values.append((keys.seen(name, "host", "self"), self._report(name, names)))
        for number, vm in enumerate(plan.vms):
            values.append((keys.spec("vm", vm.id), _spec(vm, number)))
            if vm.host:
                values.append((keys.placement(vm.id), _placement(vm)))
        self.put(*values)

    def _report(self, name: str, names: Sequence[str]) -> SeenHost:
        fence = self.plan.pool_fence if self.plan.second_line else Fence.LOCK
        pool = SeenPool(POOL, fence, tuple(other for other in names if other != name))
        return samples.report(
            1,
            host_id=name,
            memory_mib=self.plan.host_memory_mib,
            disk_mib=1024 * 1024,
            cpus=16,
            door=f"https://{name}:1",
            pool=pool,
        )

    def put(self, *values: tuple[str, Any]) -> None:
        """Written at once, as if by an API node."""
        self.cluster.ledger.write([Put(key, encode(value)) for key, value in values])

    def stored(self, key: str) -> Any:
        item = self.cluster.ledger.items.get(key)
        return value_of(item.value) if item else None

    # What is told

    def tell(self, kind: str, **facts: Any) -> None:
        self.history.append({"at_s": self.engine.now_s, "source": "simulation", "kind": kind, "dropped": 0, **facts})
        line = line_of(kind, facts)
        if line and not self._is_said_again(kind, facts, line):
            self.say(line)

    def _is_said_again(self, kind: str, facts: dict[str, Any], line: str) -> bool:
        """A refused start is tried again and again; only news is worth a line."""
        if kind not in ("start_refused", "vm_born"):
            return False
        place = (facts["vm"], facts["host"])
        before, self._refused[place] = self._refused.get(place), line
        return before == line and kind == "start_refused"

    def say(self, line: str) -> None:
        self.log.append((self.engine.now_s, line))

    def _store_changed(self, key: str, item: Item | None, revision: int) -> None:
        if not key.startswith((*_TOLD_KEYS, keys.migrations(), keys.takeovers())):
            return
        value = value_of(item.value) if item else None
        if key.startswith(keys.alive_all()) and item is not None:
            self.last_alive[keys.last_segment(key)] = item
        line = line_of_store(key, value)
        if line:
            self.say(line)
        if key.startswith(_TOLD_KEYS):
            facts: dict[str, Any] = {"key": key, "revision": revision}
            if value is not None:
                facts["host"] = value.host_id
                facts["incarnation"] = getattr(value, "incarnation", "")
                facts["generation"] = getattr(value, "generation", 0)
            self.tell("store_put" if item else "store_delete", **facts)

    # The storage service, for PoolFencing

    def fence(self, pool_id: str, host_id: str, incarnation: str) -> None:
        """Every access of this incarnation has ended."""
        if not self.rules.pools_are_fenced_first:
            return
        self.disks.fenced.add((host_id, incarnation))
        host = self.hosts.get(host_id)
        for process in host.processes.values() if host else ():
            self.disks.note(process)
        self.tell("pool_fenced", host=host_id, incarnation=incarnation)

    # The end

    def run(self, until_s: float) -> None:
        self.engine.run(until_s)

    def finish(self) -> list[Violation]:
        """Close the history and check it."""
        for host in self.hosts.values():
            for process in host.processes.values():
                self.disks.note(process, over=True)
        tell_found(self)
        self.tell("history_end")
        return check_history(self.history)

    def running(self) -> dict[str, list[str]]:
        """The hosts on which each VM runs now."""
        found: dict[str, list[str]] = {vm: [] for vm in self.vms}
        for name, host in self.hosts.items():
            for vm, process in host.processes.items():
                if process.runs:
                    found.setdefault(vm, []).append(name)
        return found


def _meta(name: str) -> Meta:
    return Meta(id=name, name=name, project="default", created_at=samples.AT)


def _spec(plan: VmPlan, number: int) -> Vm:
    vm = samples.vm(
        1, failover=plan.failover, memory_mib=plan.memory_mib, cpus=1, disk_gib=1, key_ids=(), user_data_bytes=0
    )
    meta = Meta(id=plan.id, name=plan.id, project="default", created_at=f"2026-01-31T11:00:{number:02d}.000Z")
    return Vm(meta, vm.spec)


def _placement(plan: VmPlan) -> Placement:
    return Placement(
        plan.id, plan.host, 1, 1, 1, plan.memory_mib, 1, samples.AT, Decision(1, 1, reason="was there"), pool_id=POOL
    )


_LINES = {
    "vm_born": "{vm} runs on {host}",
    "vm_exit": "{vm} ended on {host}",
    "vm_freeze": "{vm} is frozen on {host}",
    "vm_thaw": "{vm} goes on on {host}",
    "vm_paused": "{vm} stands still on {host}: all is sent",
    "vm_resume": "{vm} continues on {host}",
    "fence": "{host} fences: {reason}",
    "registered": "{host} registers as {incarnation}",
    "host_off": "{host} has no power",
    "host_frozen": "{host} is frozen",
    "host_thawed": "{host} thaws",
    "start_refused": "{vm} is not started on {host}: {reason}",
    "disowned": "{vm} is not adopted on {host}: its lock is another's",
    "takeover_fenced": "{host} is marked as fenced ({incarnation})",
    "takeover_done": "{host} is taken over ({incarnation}): its locks are free",
    "placed": "{vm} is placed on {host}, generation {generation}",
    "elected": "scheduler {scheduler} is elected",
    "pool_fenced": "the pool refuses {host} ({incarnation})",
}


def line_of(kind: str, facts: dict[str, Any]) -> str:
    """What a fact says to people; "" for those that say nothing new."""
    if kind == "placed" and not facts["host"]:
        return f"{facts['vm']} fits nowhere"
    if kind == "vm_exit" and "born" in facts:
        return ""
    if kind == "vm_born" and facts["incoming"]:
        return f"{facts['vm']} waits for its memory on {facts['host']}"
    line = _LINES.get(kind, "")
    return line.format(**facts) if line else ""


def line_of_store(key: str, value: Any) -> str:
    if key.startswith(keys.migrations()) and value is not None:
        return f"migration of {value.vm_id} from {value.source} to {value.target}: {value.phase.value}: {value.reason}"
    if key.startswith(keys.takeovers()):
        host = keys.last_segment(key)
        return f"takeover of {host}: {value.phase.value}: {value.reason}" if value else f"takeover of {host} is over"
    if key.startswith(keys.alive_all()) and value is None:
        return f"{keys.last_segment(key)} gives no life sign"
    return ""
