"""Which VMs leave a host that was taken over, and how the decision about them differs. Pure.

Must hold: a VM leaves its host only if its lock there is absent and the host's mark stands, which the commit compares;
its new placement has a generation that no copy of it anywhere has; a VM that was restarted too often waits; a guest
that ended by itself is not started by moving it.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace

from ucloud.model.migration import next_generation
from ucloud.model.placement import Placement
from ucloud.model.seen import GuestState
from ucloud.model.vm import Failover, Power, Restart, Vm
from ucloud.store import keys
from ucloud.store.api import Compare, absent, unchanged
from ucloud.store.view import View

RESTARTS_LIMIT = 3
RESTARTS_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class Departure:
    """``placement`` is what is left of the old one: no host, and a generation higher than that of every copy.

    ``optional``: it only leaves if another host takes it. ``compares`` must hold at the commit.
    """

    placement: Placement
    compares: tuple[Compare, ...]
    optional: bool = False


def departure_of(view: View, vm: Vm, placement: Placement | None, *, movable: bool = False) -> Departure | None:
    """How the VM leaves its host, None if it stays. ``movable``: nothing of it runs, and its host is to be emptied."""
    if placement is None or not placement.host_id or vm.meta.deleted_at:
        return None
    host_id, vm_id = placement.host_id, placement.vm_id
    if (host_id, vm_id) in view.locks or _rests(view, vm, placement):
        return None
    compares = [absent(keys.lock(host_id, vm_id))]
    mark = view.taken_over(host_id)
    if mark is not None:
        compares.append(unchanged(mark.key, mark.mod_revision))
    leaves = mark is not None and vm.spec.failover is Failover.RESTART
    disk = has_disk(view, placement)
    if not (leaves or movable) or (disk and not _others_have(view, placement)):
        return None
    migration = view.migrations.get(vm_id)
    left = replace(
        placement,
        host_id="",
        generation=next_generation(placement.generation, migration.value if migration else None) - 1,
        pool_id=placement.pool_id if disk else "",
    )
    return Departure(left, tuple(compares), optional=not leaves)


def _rests(view: View, vm: Vm, placement: Placement) -> bool:
    """Its guest ended by itself and is to stay so until somebody wants the next boot: another host would start it."""
    report = view.seen_vms.get((placement.host_id, placement.vm_id))
    if report is None or vm.spec.power is Power.STOPPED:
        return False
    seen = report.value
    if seen.generation != placement.generation or seen.boots < vm.spec.boots:
        return False
    ended = seen.state is GuestState.STOPPED and vm.spec.restart is not Restart.ALWAYS
    return ended or (seen.state is GuestState.CRASHED and vm.spec.restart is Restart.NEVER)


def has_disk(view: View, placement: Placement) -> bool:
    """Whether there may be something of the guest's on its disk: somebody began to make its machine."""
    place = (placement.host_id, placement.vm_id)
    report, document = view.seen_vms.get(place), view.wanted_vms.get(place)
    reported = report is not None and (report.value.boots > 0 or report.value.machine is not None)
    told = document is not None and document.value.machine is not None
    return place in view.locks or bool(placement.failovers) or reported or told


def _others_have(view: View, placement: Placement) -> bool:
    """Another host has the pool that the disk is in."""
    pools = ((host_id, entry.value.pool) for host_id, entry in view.seen_hosts.items() if host_id != placement.host_id)
    return bool(placement.pool_id) and any(pool is not None and pool.id == placement.pool_id for _, pool in pools)


def restarts_too_often(placement: Placement, at: str) -> str:
    """Why a VM without a host has to wait: it may be what its hosts died of. "" if it need not."""
    now = datetime.datetime.fromisoformat(at)
    window = datetime.timedelta(seconds=RESTARTS_WINDOW_S)
    times = [datetime.datetime.fromisoformat(text) for text in placement.failovers]
    recent = sorted(time for time in times if now - time < window)
    if len(recent) < RESTARTS_LIMIT:
        return ""
    until = (recent[-RESTARTS_LIMIT] + window).strftime("%H:%M:%S")
    minutes = f"{RESTARTS_WINDOW_S / 60:g}"
    return f"its host was lost {len(recent)} times within {minutes} minutes: it waits until {until} UTC"


def with_restart(placement: Placement, at: str) -> tuple[str, ...]:
    """Its last restarts, with one more now."""
    return (*placement.failovers, at)[-RESTARTS_LIMIT:]
