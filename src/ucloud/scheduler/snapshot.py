"""What a decision is made on: all hosts with their capacity and claims, at one revision. Immutable.

Capacities already include overcommit and reserve, so that rules only compare numbers.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace

from ucloud.config import SchedulerSection
from ucloud.model.host import Drain, Host
from ucloud.model.migration import Migration
from ucloud.model.placement import Placement
from ucloud.model.seen import Fence, SeenHost, SeenPool
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

    ``silent``: its agent has reported nothing for a while. Disks are claimed of the pool ``pool_id`` ("": of one that
    is not named), so all hosts that share it have the same ``claimed.disk_gib``. ``unproved``: other living hosts
    have tried that this pool has a second line (docs/failover.md, C), and this one has not, or not yet.
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
    draining: bool = False
    pool_id: str = ""
    unproved: bool = False

    @property
    def pool(self) -> str:
        """The pool's name, or this host's if it has none: then nobody shares it."""
        return self.pool_id or self.host_id

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
        chosen = self.candidates[host_id]
        changed = {host_id: replace(chosen, claimed=chosen.claimed.plus(amount))}
        disk = Resources(disk_gib=amount.disk_gib)
        for other in self.candidates.values() if amount.disk_gib else ():
            if other.pool == chosen.pool and other.host_id != host_id:
                changed[other.host_id] = replace(other, claimed=other.claimed.plus(disk))
        return replace(self, candidates={**self.candidates, **changed})


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
    migrations: Iterable[Migration] = (),
) -> Snapshot:
    """``seen`` by host id; ``alive`` are the host ids with a life sign, ``silent`` those whose agents are."""
    claimed = _claims(placements, migrations, seen)
    proved = {pool.id for host_id in alive if (pool := _pool_of(seen.get(host_id))) is not None and is_proved(pool)}
    candidates = {
        host.meta.id: replace(
            _candidate(host, seen.get(host.meta.id), alive, silent, claimed, settings),
            unproved=_is_unproved(_pool_of(seen.get(host.meta.id)), proved),
        )
        for host in hosts
        if not host.meta.deleted_at
    }
    return Snapshot(revision, candidates, digests)


def _claims(
    placements: Iterable[Placement], migrations: Iterable[Migration], seen: Mapping[str, SeenHost]
) -> dict[str, Resources]:
    """What is taken: cpus and memory by host id, disks by the name of their pool.

    A migrating VM takes cpus and memory on both hosts. Its disk is in the pool that they share.
    """
    claimed: dict[str, Resources] = {}

    def claim(owner: str, amount: Resources) -> None:
        claimed[owner] = claimed.get(owner, Resources()).plus(amount)

    for placement in placements:
        host_id = placement.host_id
        pool = placement.pool_id or _pool_id(seen.get(host_id)) or host_id
        if pool:
            claim(_pool_claim(pool), Resources(disk_gib=placement.disk_gib))
        if host_id:
            claim(host_id, Resources(placement.cpus, placement.memory_mib))
    for migration in migrations:
        if migration.also_claims:
            claim(migration.also_claims, Resources(migration.cpus, migration.memory_mib))
    return claimed


def _pool_claim(pool: str) -> str:
    """A pool may be called like a host."""
    return f"pool {pool}"


def _pool_id(report: SeenHost | None) -> str:
    return report.pool.id if report and report.pool else ""


def _pool_of(report: SeenHost | None) -> SeenPool | None:
    return report.pool if report else None


def is_proved(pool: SeenPool) -> bool:
    """Whether a host has tried with another one that a second writer is kept out."""
    return pool.fence is not Fence.NONE and bool(pool.proved_with)


def _is_unproved(pool: SeenPool | None, proved: Container[str]) -> bool:
    return pool is not None and pool.id in proved and not is_proved(pool)


def _candidate(
    host: Host,
    report: SeenHost | None,
    alive: frozenset[str],
    silent: frozenset[str],
    claimed: Mapping[str, Resources],
    settings: SchedulerSection,
) -> Candidate:
    host_id = host.meta.id
    pool_id = _pool_id(report)
    disk = claimed.get(_pool_claim(pool_id or host_id), Resources())
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
        claimed=claimed.get(host_id, Resources()).plus(disk),
        draining=host.spec.drain is not Drain.NONE,
        pool_id=pool_id,
    )


def _capacity(report: SeenHost, settings: SchedulerSection) -> Resources:
    """Hosts may report nonsense: nothing negative leaves here."""
    memory_mib = (max(report.memory_mib, 0) - settings.memory_reserve_mib) * settings.memory_overcommit
    return Resources(
        cpus=max(report.cpus, 0) * settings.cpu_overcommit,
        memory_mib=max(int(memory_mib), 0),
        disk_gib=max(report.disk_mib, 0) // 1024,
    )
