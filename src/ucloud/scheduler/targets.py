"""Whether a running VM can go to another host while it runs, and to which one. Pure.

Uses the same rules and scores as a new VM's placement, and those that only a running one has: the other host must have
proved that it shares the VM's pool, and must be able to run the very machine that the guest sees.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ucloud.model.host import Drain
from ucloud.model.placement import Placement, Refusal
from ucloud.model.seen import GuestState, SeenHost, SeenPool, SeenVm
from ucloud.model.vm import Power
from ucloud.scheduler.feasible import refusal_of
from ucloud.scheduler.rank import score_of
from ucloud.scheduler.snapshot import Resources, Snapshot, resources_of
from ucloud.store.view import View

TOLD_REFUSALS = 3


@dataclass(frozen=True, slots=True)
class Choice:
    """``host_id`` is "" if no host can take the VM; ``reason`` then says why, with the numbers."""

    host_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a VM cannot go from where it is, wherever to. ``passing``: that may be over in a moment."""

    reason: str
    passing: bool = False


def find_obstacle(view: View, vm_id: str) -> Obstacle | None:
    """What keeps the VM from being moved while it runs, whatever other hosts there are."""
    vm, placed = view.vms.get(vm_id), view.placements.get(vm_id)
    if vm is None or placed is None or not placed.value.host_id:
        return Obstacle("it is on no host")
    host_id = placed.value.host_id
    if vm.value.meta.deleted_at:
        return Obstacle("it is being deleted", passing=True)
    if host_id not in view.alive:
        return Obstacle(f"host {host_id} gives no life sign")
    if vm.value.spec.power is Power.STOPPED:
        return Obstacle("it is stopped")
    report = view.seen_vms.get((host_id, vm_id))
    seen = report.value if report else None
    if seen is None or seen.generation != placed.value.generation:
        return Obstacle(f"host {host_id} has not reported it yet", passing=True)
    return _guest_obstacle(seen) or _lock_obstacle(view, placed.value) or _pool_obstacle(view, placed.value)


def _guest_obstacle(seen: SeenVm) -> Obstacle | None:
    if seen.state is GuestState.RUNNING:
        return None
    passing = seen.state in (GuestState.PREPARING, GuestState.STARTING, GuestState.STOPPING, GuestState.UNKNOWN)
    return Obstacle(f"it is {seen.state.value}, not running", passing=passing)


def _lock_obstacle(view: View, placement: Placement) -> Obstacle | None:
    """Its lock could not be moved: better said now than when the guest stands still."""
    host_id = placement.host_id
    entry = view.locks.get((host_id, placement.vm_id))
    if entry is None or entry.value.generation != placement.generation:
        return Obstacle(f"host {host_id} does not hold its run lock", passing=True)
    if entry.value.incarnation != view.alive[host_id].value.incarnation:
        return Obstacle(f"it was started under an earlier guard of host {host_id}: it can move after its next boot")
    return None


def _pool_obstacle(view: View, placement: Placement) -> Obstacle | None:
    pool = _pool_of(view, placement.host_id)
    if pool is None or not pool.id:
        return Obstacle(f"its disk is in a pool that only host {placement.host_id} has")
    if placement.pool_id and pool.id != placement.pool_id:
        return Obstacle(f"its disk is in pool {placement.pool_id}, but host {placement.host_id} has pool {pool.id}")
    sharing = [other for other in view.seen_hosts if other != placement.host_id and is_shared(view, placement, other)]
    return None if sharing else Obstacle(f"no other host has proved that it shares pool {pool.id}")


def is_shared(view: View, placement: Placement, other_host_id: str) -> bool:
    """Whether the two hosts have tried together that the pool of this placement is one and the same."""
    mine, other = _pool_of(view, placement.host_id), _pool_of(view, other_host_id)
    if mine is None or other is None or not mine.id or mine.id != other.id:
        return False
    return other_host_id in mine.proved_with or placement.host_id in other.proved_with


def _pool_of(view: View, host_id: str) -> SeenPool | None:
    report = view.seen_hosts.get(host_id)
    return report.value.pool if report else None


def room_for(placement: Placement) -> Resources:
    """What it takes of another host: not its disk, which stays in the pool that both have."""
    return replace(resources_of(placement), disk_gib=0)


def choose_target(view: View, snapshot: Snapshot, vm_id: str, *, wanted: str = "") -> Choice:
    """The best host for the VM, or ``wanted`` if that can take it. Its placement must be there."""
    placement = view.placements[vm_id].value
    vm = view.vms[vm_id].value
    request = room_for(placement)
    digest = snapshot.digests.get(vm.spec.image_id, "")
    refusals: list[Refusal] = []
    scores = []
    for host_id in sorted({wanted} if wanted else snapshot.candidates):
        refusal = _refusal(view, snapshot, placement, host_id)
        if refusal is None:
            scores.append(score_of(request, digest, snapshot.candidates[host_id]))
        elif host_id != placement.host_id or wanted:
            refusals.append(refusal)
    if not scores:
        return Choice("", _told(refusals))
    best = min(scores, key=lambda score: (-score.total, score.host_id))
    return Choice(best.host_id, "was asked for" if wanted else f"scored best of {len(scores)} possible hosts")


def _refusal(view: View, snapshot: Snapshot, placement: Placement, host_id: str) -> Refusal | None:
    if host_id == placement.host_id:
        return Refusal(host_id, "source", "is where it runs")
    host = view.hosts.get(host_id)
    if host is None or host_id not in snapshot.candidates:
        return Refusal(host_id, "known", "is no host of this cloud")
    if host.value.spec.drain is not Drain.NONE:
        return Refusal(host_id, "drain", "is being drained")
    refusal = refusal_of(room_for(placement), snapshot.candidates[host_id])
    if refusal is not None:
        return refusal
    if not is_shared(view, placement, host_id):
        return Refusal(host_id, "pool", f"has not proved that it shares the pool of {placement.host_id}")
    return _machine_refusal(view, placement, host_id)


def _machine_refusal(view: View, placement: Placement, host_id: str) -> Refusal | None:
    """A guest's processor cannot change under it, and an older QEMU does not know a newer one's state."""
    source, target = view.seen_hosts[placement.host_id].value, view.seen_hosts[host_id].value
    for name in ("architecture", "accelerator"):
        here, there = _facts(source, name), _facts(target, name)
        if here and there and here != there:
            return Refusal(host_id, "machine", f"has {name} {there}, not {here}")
    if _version(target.qemu_version) < _version(source.qemu_version):
        return Refusal(host_id, "machine", f"has the older QEMU {target.qemu_version}, not {source.qemu_version}")
    return None


def _facts(report: SeenHost, name: str) -> str:
    return str(getattr(report, name))


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers: what differs behind them does not change the state of a machine."""
    return tuple(int(digits) for digits in re.findall(r"\d+", text)[:2])


def _told(refusals: list[Refusal]) -> str:
    if not refusals:
        return "there is no other host"
    told = "; ".join(f"{refusal.host_id} {refusal.reason}" for refusal in refusals[:TOLD_REFUSALS])
    more = f"; and {len(refusals) - TOLD_REFUSALS} more" if len(refusals) > TOLD_REFUSALS else ""
    return f"no host can take it: {told}{more}"
