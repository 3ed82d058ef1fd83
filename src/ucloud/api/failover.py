"""Lost hosts and what is done about them: the brake, who is held and until when; and what that means for VMs."""

from __future__ import annotations

from typing import Any

from ucloud.api.answers import Answer
from ucloud.api.site import Site
from ucloud.config import SchedulerSection
from ucloud.errors import Conflict
from ucloud.model.condition import Condition
from ucloud.model.guard import Takeover, TakeoverPhase
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover, Vm
from ucloud.scheduler.takeover import BRAKE_WINDOW_S, brake_limit, losses, lost_hosts
from ucloud.store.codec import to_plain
from ucloud.store.view import View


def get_failover(site: Site) -> Answer:
    """Show the hosts that were lost, and whether their VMs may be started elsewhere."""
    view = site.view()
    settings = site.config.scheduler
    lost = [_lost_document(view, host_id) for host_id in sorted(view.registered) if host_id not in view.alive]
    brake = _brake(site, view, settings)
    held = any(one["takeover"] and one["takeover"]["phase"] == TakeoverPhase.HELD.value for one in lost)
    done = all(one["takeover"] and one["takeover"]["phase"] == TakeoverPhase.DONE.value for one in lost)
    word = "ok" if not lost else "held" if held else "taken_over" if done else "lost"
    return Answer({"word": word, "brake": brake, "lost": lost, "revision": view.revision})


def _brake(site: Site, view: View, settings: SchedulerSection) -> dict[str, Any]:
    hosts = sum(not entry.value.meta.deleted_at for entry in view.hosts.values())
    limit = brake_limit(hosts, settings.failover_share_percent)
    recent = losses(view, lost_hosts(view), site.clock.now())
    return {
        "on": len(recent) > limit,
        "window_s": int(BRAKE_WINDOW_S),
        "limit": limit,
        "lost_in_window": len(recent),
        "hosts": hosts,
        "share_percent": settings.failover_share_percent,
    }


def _lost_document(view: View, host_id: str) -> dict[str, Any]:
    sign, host = view.registered[host_id].value, view.hosts.get(host_id)
    takeover = takeover_of(view, host_id)
    return {
        "host_id": host_id,
        "name": host.value.meta.name if host else "",
        "incarnation": sign.incarnation,
        "fence_s": float(sign.fence_s),
        "confirmed_off": view.is_confirmed_off(host_id),
        "vms": sorted(vm_id for vm_id, entry in view.placements.items() if entry.value.host_id == host_id),
        "takeover": to_plain(takeover),
    }


def takeover_of(view: View, host_id: str) -> Takeover | None:
    """What is being done about the guard that registered last."""
    entry, registered = view.takeovers.get(host_id), view.registered.get(host_id)
    if entry is None or registered is None or entry.value.incarnation != registered.value.incarnation:
        return None
    return entry.value


def refuse_on_lost_host(view: View, vm_id: str, deed: str, *, unless_confirmed: bool = False) -> None:
    """Raises Conflict if the VM's host is lost: nobody knows what happens to its disk there."""
    placement = view.placements.get(vm_id)
    host_id = placement.value.host_id if placement else ""
    if not host_id or host_id in view.alive or (unless_confirmed and view.is_confirmed_off(host_id)):
        return
    takeover = takeover_of(view, host_id)
    about = f" ({takeover.reason})" if takeover else ""
    raise Conflict(
        f"failed to {deed} {vm_id}: its host {host_id} gives no life sign, and may still run it{about}",
        hint=f"wait for the host; or, if its machine is off for sure, say so: 'ucloud failover confirm {host_id}'",
        code="host_lost",
    )


def failover_condition(vm: Vm, view: View) -> Condition:
    """Whether the VM would be started elsewhere if its host were lost now, and why not."""
    reason = _why_not(vm, view)
    return Condition("failover_possible", not reason, reason)


def _why_not(vm: Vm, view: View) -> str:
    if vm.spec.failover is Failover.NONE:
        return "nobody asked for it: spec.failover is none"
    placement = view.placements.get(vm.meta.id)
    host_id = placement.value.host_id if placement else ""
    if not host_id:
        return "it is on no host"
    report = view.seen_hosts.get(host_id)
    pool = report.value.pool if report else None
    if pool is None or not pool.id:
        return f"its disk is in a pool that only host {host_id} has"
    if pool.fence is Fence.NONE or not pool.proved_with:
        return f"host {host_id} has not proved with another one that pool {pool.id} keeps a second writer out"
    sign = view.registered.get(host_id)
    if sign is not None and sign.value.fence_s <= 0 and not view.is_confirmed_off(host_id):
        return f"the guard of {host_id} never fences: somebody would have to confirm that the host is off"
    lock = view.locks.get((host_id, vm.meta.id))
    if lock is not None and lock.value.failover is Failover.NONE:
        return "it was started without: from its next start on"
    return ""
