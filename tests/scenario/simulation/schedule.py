"""Random schedules: one seed, one cloud, one list of faults. And their run, with what the checker says of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from tests.scenario.simulation.cloud import Cloud, Plan, VmPlan
from tests.scenario.simulation.faults import Faults
from tests.scenario.simulation.switches import ALL_ON, Rules
from ucloud.lab.checker import Violation
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover

SETTLE_S = 20.0


@dataclass(frozen=True)
class Schedule:
    """``steps`` are (time, line of a fault). ``until_s``: when it is over."""

    seed: int
    plan: Plan
    steps: tuple[tuple[float, str], ...]
    until_s: float


@dataclass(frozen=True)
class Outcome:
    """``stray``: VMs that should run at the end, and do not, or not once."""

    violations: tuple[Violation, ...]
    stray: tuple[str, ...]
    log: tuple[tuple[float, str], ...]
    takeovers: int
    moves: int


def make_schedule(seed: int, rules: Rules = ALL_ON) -> Schedule:
    chance = random.Random(seed)
    plan = _plan(chance, rules)
    steps: list[tuple[float, str]] = []
    at_s = 3.0
    for _ in range(chance.randint(1, 4)):
        at_s += chance.uniform(0.2, 5.0)
        steps += _FAULTS[chance.randrange(len(_FAULTS))](chance, plan, at_s)
    if chance.random() < 0.5:
        moving = chance.uniform(2.5, at_s)
        steps.append((moving, f"migrate {chance.choice(plan.vms).id}"))
    end_s = max(when for when, _ in steps) + 6.0
    steps += [(chance.uniform(2.0, end_s), f"write {number}") for number in range(3)]
    steps += _healing(plan, end_s)
    steps.sort(key=lambda step: step[0])
    return Schedule(seed, plan, tuple(steps), end_s + SETTLE_S)


def _plan(chance: random.Random, rules: Rules) -> Plan:
    hosts = chance.randint(3, 4)
    vms = tuple(
        VmPlan(
            f"vm-{number}",
            f"h{chance.randint(1, hosts)}",
            Failover.NONE if chance.random() < 0.15 else Failover.RESTART,
        )
        for number in range(1, chance.randint(2, 4))
    )
    schedulers = ("c1", "h1") if chance.random() < 0.3 else ("c1", "c2")
    second_line = chance.random() < 0.35
    return Plan(
        hosts=hosts,
        vms=vms,
        schedulers=schedulers,
        pool_fence=chance.choice([Fence.LOCK, Fence.VERB]),
        second_line=second_line,
        fence_s=chance.choice([2.25, 3.0]),
        failover_share_percent=100,
        rules=rules,
    )


def run_schedule(schedule: Schedule) -> Outcome:
    cloud = Cloud(schedule.plan, schedule.seed)
    faults = Faults(cloud)
    for at_s, line in schedule.steps:
        cloud.engine.after(at_s, faults.do, line)
    cloud.run(schedule.until_s)
    running = cloud.running()
    stray = tuple(vm for vm in cloud.vms if len(running[vm]) != 1)
    kinds = [event["kind"] for event in cloud.history]
    return Outcome(tuple(cloud.finish()), stray, tuple(cloud.log), kinds.count("takeover_done"), kinds.count("moved"))


def _host(chance: random.Random, plan: Plan) -> str:
    return f"h{chance.randint(1, plan.hosts)}"


def _power(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    host = _host(chance, plan)
    return [(at_s, f"power-off {host}"), (at_s + chance.uniform(0.5, 12.0), f"power-on {host}")]


def _cut(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    host, of = _host(chance, plan), chance.choice(["all", "etcd", "e1", "e2,e3", "c1"])
    way = chance.choice(["both", "both", "in", "out"])
    return [(at_s, f"cut {host} {of} {way}"), (at_s + chance.uniform(0.3, 9.0), f"heal {host} {of}")]


def _flap(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    host, steps = _host(chance, plan), []
    for _ in range(chance.randint(2, 5)):
        steps.append((at_s, f"cut {host} etcd"))
        at_s += chance.uniform(0.2, 3.6)
        steps.append((at_s, f"heal {host} etcd"))
        at_s += chance.uniform(0.05, 1.0)
    return steps


def _reject(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    host = _host(chance, plan)
    return [(at_s, f"reject {host} etcd"), (at_s + chance.uniform(0.3, 9.0), f"heal {host} etcd")]


def _etcd(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    which = chance.choice(["e1", "e2", "e3", "all"])
    verb, undo = chance.choice([("stop-etcd", "start-etcd"), ("freeze-etcd", "thaw-etcd")])
    return [(at_s, f"{verb} {which}"), (at_s + chance.uniform(0.2, 8.0), f"{undo} {which}")]


def _leader(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    verb, undo = chance.choice([("stop-etcd", "start-etcd"), ("freeze-etcd", "thaw-etcd"), ("hang-etcd", "mend-etcd")])
    back_s = at_s + chance.uniform(0.3, 6.0)
    members = [f"e{number}" for number in range(1, plan.etcd + 1)]
    return [(at_s, f"{verb} leader"), *((back_s, f"{undo} {member}") for member in members)]


def _members(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    member = f"e{chance.randint(1, plan.etcd)}"
    of = chance.choice(["all", "e1,e2,e3"])
    return [(at_s, f"cut {member} {of}"), (at_s + chance.uniform(0.3, 8.0), f"heal {member} {of}")]


def _processes(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    verb = chance.choice(["kill-guard", "kill-agent", "kill-agent"])
    return [(at_s, f"{verb} {_host(chance, plan)}")]


def _slow(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    machine = chance.choice([_host(chance, plan), f"e{chance.randint(1, 3)}", plan.schedulers[0]])
    return [
        (at_s, f"slow {machine} {chance.choice([20, 80, 250, 700])}"),
        (at_s + chance.uniform(1.0, 8.0), f"slow {machine} 0"),
    ]


def _scheduler(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    name = chance.choice(plan.schedulers)
    verb, undo = chance.choice([("kill-scheduler", "start-scheduler"), ("freeze-scheduler", "thaw-scheduler")])
    return [(at_s, f"{verb} {name}"), (at_s + chance.uniform(0.5, 8.0), f"{undo} {name}")]


def _prepare(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    return [(max(0.0, at_s - 3.0), f"prepare {_host(chance, plan)} {chance.uniform(1.0, 8.0):.2f}")]


def _drain(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    host = _host(chance, plan)
    return [(at_s, f"drain {host}"), (at_s + chance.uniform(1.0, 8.0), f"undrain {host}")]


def _migrate(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    vm = chance.choice(plan.vms)
    steps = [(at_s, f"migrate {vm.id}")]
    if chance.random() < 0.4:
        steps.append((at_s + chance.uniform(0.05, 2.0), f"cancel {vm.id}"))
    fault = chance.choice([_power, _cut, _leader, _processes, _scheduler, _members, _slow])
    return [*steps, *fault(chance, plan, at_s + chance.uniform(0.1, 2.5))]


def _clock(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    return [(at_s, f"clock-step {chance.choice([-30, -3, 3, 30])}")]


def _space(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    return [(at_s, "nospace on"), (at_s + chance.uniform(0.5, 6.0), "nospace off")]


def _frozen(chance: random.Random, plan: Plan, at_s: float) -> list[tuple[float, str]]:
    """Only where the second line stands: the first does not cover what is frozen."""
    if not plan.second_line:
        return _cut(chance, plan, at_s)
    host, back_s = _host(chance, plan), at_s + chance.uniform(0.3, 9.0)
    if chance.random() < 0.3:
        vm = chance.choice(plan.vms)
        return [(at_s, f"stuck {host} {vm.id} {chance.uniform(1.0, 9.0):.2f}"), *_cut(chance, plan, at_s + 0.1)]
    what = chance.choice(["", "-guard", "-agent"])
    return [(at_s, f"freeze{what} {host}"), (back_s, f"thaw{what} {host}")]


_FAULTS = (
    _power,
    _power,
    _cut,
    _cut,
    _cut,
    _flap,
    _reject,
    _etcd,
    _leader,
    _leader,
    _members,
    _processes,
    _slow,
    _scheduler,
    _prepare,
    _drain,
    _migrate,
    _migrate,
    _clock,
    _space,
    _frozen,
    _frozen,
)


def _healing(plan: Plan, at_s: float) -> list[tuple[float, str]]:
    """Everything works again, so that what is still wrong at the end was not repaired by what should have."""
    steps = [(at_s, "heal-all"), (at_s, "start-etcd all"), (at_s, "thaw-etcd all"), (at_s, "nospace off")]
    for member in range(1, plan.etcd + 1):
        steps.append((at_s, f"mend-etcd e{member}"))
    for number in range(1, plan.hosts + 1):
        host = f"h{number}"
        steps += [(at_s, f"{verb} {host}") for verb in ("thaw", "thaw-guard", "thaw-agent", "power-on", "undrain")]
        steps.append((at_s, f"prepare {host} 0.2"))
    for name in plan.schedulers:
        steps += [(at_s, f"thaw-scheduler {name}"), (at_s, f"start-scheduler {name}")]
    return steps


def without(rule: str) -> Rules:
    """All rules but one."""
    return replace(ALL_ON, **{rule: False})
