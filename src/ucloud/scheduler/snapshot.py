"""What a decision is made on: all hosts with their capacity and claims, at one revision. Immutable.

Capacities already include overcommit and reserve, so that rules only compare numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ucloud.config import SchedulerSection
from ucloud.model.host import Host
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenHost
from ucloud.model.vm import Vm


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of what hosts have and VMs take."""

    cpus: float = 0.0
    memory_mib: int = 0
    disk_gib: int = 0

    def plus(self, other: Resources) -> Resources:
        return Resources(self.cpus + other.cpus, self.memory_mib + other.memory_mib, self.disk_gib + other.disk_gib)

    def minus(self, other: Resources) -> Resources:
        return Resources(self.cpus - other.cpus, self.memory_mib - other.memory_mib, self.disk_gib - other.disk_gib)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One host as the rules see it. ``capacity`` is what may be claimed, ``claimed`` what is.

    ``silent``: its agent has reported nothing for a while.
    """

    host_id: str
    name: str
    schedulable: bool
    alive: bool
    reported: bool
    silent: bool
    pool_full: bool
    images: frozenset[str]
    capacity: Resources
    claimed: Resources

    @property
    def free(self) -> Resources:
        return self.capacity.minus(self.claimed)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``digests`` are the image digests by image id."""

    revision: int
    candidates: Mapping[str, Candidate]
    digests: Mapping[str, str]

    def with_claim(self, host_id: str, amount: Resources) -> Snapshot:
        """The same world after ``amount`` was claimed on a host: for the next decision of a batch."""
        before = self.candidates[host_id]
        after = replace(before, claimed=before.claimed.plus(amount))
        return replace(self, candidates={**self.candidates, host_id: after})


def resources_of(thing: Placement) -> Resources:
    return Resources(thing.cpus, thing.memory_mib, thing.disk_gib)


def request_of(vm: Vm) -> Resources:
    return Resources(vm.spec.cpus, vm.spec.memory_mib, vm.spec.disk_gib)


def build_snapshot(
    *,
    revision: int,
    hosts: Iterable[Host],
    seen: Mapping[str, SeenHost],
    alive: frozenset[str],
    placements: Iterable[Placement],
    digests: Mapping[str, str],
    settings: SchedulerSection,
    silent: frozenset[str] = frozenset(),
) -> Snapshot:
    """``seen`` by host id; ``alive`` are the host ids with a life sign, ``silent`` those whose agents are."""
    claimed: dict[str, Resources] = {}
    for placement in placements:
        if placement.host_id:
            before = claimed.get(placement.host_id, Resources())
            claimed[placement.host_id] = before.plus(resources_of(placement))
    candidates = {
        host.meta.id: _candidate(host, seen.get(host.meta.id), alive, silent, claimed, settings)
        for host in hosts
        if not host.meta.deleted_at
    }
    return Snapshot(revision, candidates, digests)


def _candidate(
    host: Host,
    report: SeenHost | None,
    alive: frozenset[str],
    silent: frozenset[str],
    claimed: Mapping[str, Resources],
    settings: SchedulerSection,
) -> Candidate:
    host_id = host.meta.id
    return Candidate(
        host_id=host_id,
        name=host.meta.name,
        schedulable=host.spec.schedulable,
        alive=host_id in alive,
        reported=report is not None,
        silent=host_id in silent,
        pool_full=report is not None and report.pool_full,
        images=frozenset(report.images) if report else frozenset(),
        capacity=_capacity(report, settings) if report else Resources(),
        claimed=claimed.get(host_id, Resources()),
    )


def _capacity(report: SeenHost, settings: SchedulerSection) -> Resources:
    """Hosts may report nonsense: nothing negative leaves here."""
    memory_mib = (max(report.memory_mib, 0) - settings.memory_reserve_mib) * settings.memory_overcommit
    return Resources(
        cpus=max(report.cpus, 0) * settings.cpu_overcommit,
        memory_mib=max(int(memory_mib), 0),
        disk_gib=max(report.disk_mib, 0) // 1024,
    )
