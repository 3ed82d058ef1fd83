"""A scenario folder: ``cluster.toml`` says what there is, ``steps`` what happens when, ``expect.log`` what follows."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from tests.scenario.simulation.cloud import Cloud, Plan, VmPlan
from tests.scenario.simulation.faults import Faults
from tests.scenario.simulation.switches import ALL_ON, Rules
from ucloud.lab.checker import Violation
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover

_SEED = 1


@dataclass(frozen=True)
class Story:
    plan: Plan
    steps: tuple[tuple[float, str], ...]
    until_s: float


@dataclass(frozen=True)
class Told:
    """``lines`` are those of expect.log."""

    lines: tuple[str, ...]
    violations: tuple[Violation, ...]


def read_story(folder: Path) -> Story:
    return Story(
        _plan(tomllib.loads((folder / "cluster.toml").read_text())), *parse_steps((folder / "steps").read_text())
    )


def _plan(plain: dict[str, Any]) -> Plan:
    known = {field.name for field in fields(Plan)}
    if unknown := plain.keys() - known:
        raise ValueError(f"unknown in cluster.toml: {', '.join(sorted(unknown))}")
    vms = tuple(VmPlan(**{**vm, "failover": Failover(vm.get("failover", "restart"))}) for vm in plain.get("vms", []))
    plain = {**plain, "vms": vms}
    if "schedulers" in plain:
        plain["schedulers"] = tuple(plain["schedulers"])
    if "pool_fence" in plain:
        plain["pool_fence"] = Fence(plain["pool_fence"])
    return Plan(**plain)


def parse_steps(text: str) -> tuple[tuple[tuple[float, str], ...], float]:
    """Lines of ``<seconds> <fault>``, one ``until <seconds>``; "#" begins a comment."""
    steps: list[tuple[float, str]] = []
    until_s = 0.0
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("until "):
            until_s = float(line.removeprefix("until "))
        elif line:
            at_s, _, fault = line.partition(" ")
            steps.append((float(at_s), fault.strip()))
    return tuple(steps), until_s


def tell_story(story: Story, rules: Rules = ALL_ON) -> Told:
    """Without jitter: every run is the same."""
    cloud = Cloud(replace(story.plan, rules=rules), _SEED, jitter=False)
    faults = Faults(cloud)
    for at_s, fault in story.steps:
        cloud.engine.after(at_s, faults.do, fault)
    cloud.run(story.until_s)
    running = cloud.running()
    violations = tuple(cloud.finish())
    lines = [f"{at_s:6.1f} {line}" for at_s, line in cloud.log]
    lines += [f"at the end {vm} runs on {', '.join(running[vm]) or 'no host'}" for vm in cloud.vms]
    lines += [f"UNSAFE {violation}" for violation in violations]
    return Told(tuple(lines), violations)
