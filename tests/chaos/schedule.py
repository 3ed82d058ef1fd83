"""What is done to a lab in one schedule, drawn from its seed alone. Pure.

A deed has a time, counted from the schedule's start, and ends by itself after ``for_s``, if it is one that lasts. Deeds
overlap. ``where`` is a node, or the number of a VM among those that are there.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HOSTS, ETCD, APIS = 4, 3, 2
MOST_VMS = 12
_WITHIN_S = 6.0  # all begin in so long
_BLIPS_S = (1.0, 1.5, 2.0, 4.0, 6.0)


@dataclass(frozen=True, slots=True)
class Deed:
    at_s: float
    kind: str
    where: str = ""
    for_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self.facts.items() if value)
        lasts = f"{self.for_s:g}s" if self.for_s else ""
        return " ".join(word for word in (f"{self.at_s:.1f}", self.kind, self.where, facts, lasts) if word)


@dataclass(frozen=True, slots=True)
class Schedule:
    """``restart`` and ``none`` are how many VMs there are with this ``failover``."""

    seed: int
    restart: int
    none: int
    deeds: tuple[Deed, ...]

    @property
    def text(self) -> str:
        return "; ".join(str(deed) for deed in self.deeds)


Draw = Callable[[random.Random, float], Deed]


def make_schedule(seed: int) -> Schedule:
    """Two to four faults, and often a migration or a drain under way among them."""
    chance = random.Random(seed)
    restart = chance.randint(3, 9)
    none = chance.randint(0, MOST_VMS - restart - 1) // 2 + 1
    draws = chance.choices(tuple(_FAULTS), weights=tuple(_FAULTS.values()), k=chance.randint(2, 4))
    draws += chance.choices((_migrate, _drain), weights=(2, 1), k=chance.choice((0, 1, 1, 2, 2)))
    deeds = [draw(chance, round(chance.uniform(0.0, _WITHIN_S), 1)) for draw in draws]
    return Schedule(seed, restart, none, tuple(sorted(deeds, key=lambda deed: deed.at_s)))


def _host(chance: random.Random) -> str:
    return f"h{chance.randint(1, HOSTS)}"


def _lasting(chance: random.Random, most_s: float) -> float:
    return round(chance.uniform(0.5, most_s), 1)


def _power_off(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "power_off", _host(chance), _lasting(chance, 15.0))


def _power_off_other(chance: random.Random, at_s: float) -> Deed:
    node = chance.choice([f"a{number + 1}" for number in range(APIS)] + [f"e{number + 1}" for number in range(ETCD)])
    return Deed(at_s, "power_off", node, _lasting(chance, 8.0))


def _cut(chance: random.Random, at_s: float) -> Deed:
    peers = chance.choice([(), (), ("etcd",), ("etcd",), ("host",), ("api",), (f"e{chance.randint(1, ETCD)}",)])
    way = chance.choice(["both", "both", "in", "out"])
    facts = {"peers": peers, "way": way, "reject": chance.random() < 0.3}
    return Deed(at_s, "cut", _host(chance), _lasting(chance, 12.0), facts)


def _cut_member(chance: random.Random, at_s: float) -> Deed:
    peers = chance.choice([(), ("etcd",), ("host",)])
    facts = {"peers": peers, "way": chance.choice(["both", "in", "out"]), "reject": chance.random() < 0.3}
    return Deed(at_s, "cut", f"e{chance.randint(1, ETCD)}", _lasting(chance, 8.0), facts)


def _freeze(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "freeze", _host(chance), _lasting(chance, 10.0))


def _freeze_guard(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "freeze_program", _host(chance), _lasting(chance, 8.0), {"program": "guard"})


def _freeze_agent(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "freeze_program", _host(chance), _lasting(chance, 8.0), {"program": "agent"})


def _kill_guard(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "kill", _host(chance), facts={"program": "guard"})


def _kill_agent(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "kill", _host(chance), facts={"program": "agent"})


def _kill_scheduler(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "kill", f"a{chance.randint(1, APIS)}", facts={"program": chance.choice(["scheduler", "api"])})


def _freeze_scheduler(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "freeze_program", f"a{chance.randint(1, APIS)}", _lasting(chance, 8.0), {"program": "scheduler"})


def _kill_leader(_: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "kill_leader")


def _freeze_leader(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "freeze_leader", for_s=_lasting(chance, 6.0))


def _stop_etcd(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "stop_etcd", f"e{chance.randint(1, ETCD)}", _lasting(chance, 8.0))


def _stop_all_etcd(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "stop_etcd", "all", _lasting(chance, 6.0))


def _blip_all(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "blip_all", for_s=chance.choice(_BLIPS_S))


def _slow(chance: random.Random, at_s: float) -> Deed:
    node = chance.choice([_host(chance), _host(chance), f"e{chance.randint(1, ETCD)}"])
    facts = {"delay_s": chance.choice([0.02, 0.1, 0.3]), "loss": chance.choice([0.0, 0.1, 0.3])}
    return Deed(at_s, "slow", node, _lasting(chance, 8.0), facts)


def _migrate(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "migrate", str(chance.randint(0, MOST_VMS - 1)), facts={"cancel": chance.random() < 0.15})


def _drain(chance: random.Random, at_s: float) -> Deed:
    return Deed(at_s, "drain", _host(chance), _lasting(chance, 10.0), {"stop": chance.random() < 0.3})


_FAULTS: dict[Draw, int] = {
    _power_off: 6,
    _power_off_other: 2,
    _cut: 8,
    _cut_member: 2,
    _freeze: 3,
    _freeze_guard: 3,
    _freeze_agent: 1,
    _kill_guard: 3,
    _kill_agent: 3,
    _kill_scheduler: 2,
    _freeze_scheduler: 2,
    _kill_leader: 3,
    _freeze_leader: 3,
    _stop_etcd: 2,
    _stop_all_etcd: 1,
    _blip_all: 3,
    _slow: 2,
}
