"""One pass of the scheduler: which placements to write now. ``plan_pass`` is pure; ``commit.py`` writes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ucloud.config import SchedulerSection
from ucloud.model.placement import Placement
from ucloud.model.vm import Power, Vm
from ucloud.scheduler.anew import Departure, departure_of
from ucloud.scheduler.plan import plan_placement
from ucloud.scheduler.snapshot import Resources, Snapshot, build_snapshot, resources_of
from ucloud.store.api import Compare
from ucloud.store.view import Entry, View


@dataclass(frozen=True, slots=True)
class Planned:
    """A placement to write, and what it was decided on. ``compares`` must hold besides."""

    vm: Entry[Vm]
    previous: Entry[Placement] | None
    placement: Placement
    compares: tuple[Compare, ...] = ()


def snapshot_of(view: View, settings: SchedulerSection, silent: frozenset[str] = frozenset()) -> Snapshot:
    return build_snapshot(
        revision=view.revision,
        hosts=[entry.value for entry in view.hosts.values()],
        seen={host_id: entry.value for host_id, entry in view.seen_hosts.items()},
        alive=frozenset(view.alive),
        placements=[entry.value for entry in view.placements.values()],
        digests={image_id: entry.value.spec.digest for image_id, entry in view.images.items()},
        settings=settings,
        silent=silent,
        migrations=[entry.value for entry in view.migrations.values()],
    )


def plan_pass(
    view: View,
    settings: SchedulerSection,
    *,
    at: str,
    silent: frozenset[str] = frozenset(),
    movable: frozenset[str] = frozenset(),
) -> tuple[Planned, ...]:
    """Decisions for all VMs that need one, each seeing the claims of those before it.

    First those that lost their host, running ones before stopped ones; then oldest first. ``silent`` are the hosts
    whose agents have reported nothing for a while, ``movable`` the VMs that are to leave a host that is emptied.
    """
    snapshot = snapshot_of(view, settings, silent)
    planned = []
    for vm, departure in _in_order(view, movable):
        previous = view.placements.get(vm.value.meta.id)
        placement = _decide(vm.value, previous, departure, snapshot, at)
        if placement is None:
            continue
        planned.append(Planned(vm, previous, placement, departure.compares if departure else ()))
        snapshot = _claim(snapshot, previous.value if previous else None, placement)
    return tuple(planned)


def _in_order(view: View, movable: frozenset[str]) -> list[tuple[Entry[Vm], Departure | None]]:
    """The VMs that need a decision, with how they leave their host, most urgent first."""
    urgent = []
    for vm_id, vm in view.vms.items():
        previous = view.placements.get(vm_id)
        before = previous.value if previous else None
        departure = departure_of(view, vm.value, before, movable=vm_id in movable)
        if departure is not None or _needs_decision(vm.value, before, view):
            meta = vm.value.meta
            stays = departure is None or departure.optional
            stopped = vm.value.spec.power is Power.STOPPED
            urgency = (stays, -vm.value.spec.priority, stopped, meta.created_at, meta.id)
            urgent.append((urgency, vm, departure))
    urgent.sort(key=lambda one: one[0])
    return [(vm, departure) for _, vm, departure in urgent]


def _decide(
    vm: Vm, previous: Entry[Placement] | None, departure: Departure | None, snapshot: Snapshot, at: str
) -> Placement | None:
    """The placement to write; None if there is nothing new to say."""
    before = previous.value if previous else None
    if departure is not None:
        lost = not departure.optional
        placement = plan_placement(vm, snapshot, previous=departure.placement, at=at, was_lost=lost)
        if not departure.optional or placement.host_id not in ("", before.host_id if before else ""):
            return placement
        if before is not None and before.spec_generation == vm.meta.generation:
            return None
    placement = plan_placement(vm, snapshot, previous=before, at=at)
    return None if before is not None and _says_the_same(before, placement) else placement


def _needs_decision(vm: Vm, placement: Placement | None, view: View) -> bool:
    if vm.meta.deleted_at:
        return False
    if placement is None:
        return vm.spec.power is Power.RUNNING
    if not placement.host_id or placement.spec_generation != vm.meta.generation:
        return True
    report = view.seen_hosts.get(placement.host_id)
    return not placement.pool_id and report is not None and report.value.pool is not None and bool(report.value.pool.id)


def _says_the_same(before: Placement, after: Placement) -> bool:
    """Only revision, generation and time differ: nobody needs to hear it again."""
    if (before.host_id, before.spec_generation) != (after.host_id, after.spec_generation):
        return False
    silent = replace(after.decision, revision=before.decision.revision)
    return replace(after, generation=before.generation, at=before.at, decision=silent) == before


def _claim(snapshot: Snapshot, before: Placement | None, after: Placement) -> Snapshot:
    """With what the placement takes more than the snapshot knows."""
    if after.host_id not in snapshot.candidates:
        return snapshot
    amount = resources_of(after)
    if before is not None and before.host_id == after.host_id:
        amount = amount.minus(resources_of(before))
    elif before is not None and before.pool_id and before.pool_id == after.pool_id:
        amount = amount.minus(Resources(disk_gib=before.disk_gib))
    return snapshot.with_claim(after.host_id, amount)
