"""A host's status: its word with a reason, what it has, how its drain goes, what is done about its loss. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ucloud.api.failover import takeover_of
from ucloud.config import SchedulerSection
from ucloud.model.guard import TakeoverPhase
from ucloud.model.host import Drain, Host
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenHost
from ucloud.scheduler.drain import blocked, is_migrating, left_running
from ucloud.store.codec import to_plain
from ucloud.store.view import View

Document = dict[str, Any]

_NUMBERS = ("cpus", "memory_mib", "disk_mib", "disk_free_mib", "members_version")
_TEXTS = ("accelerator", "version", "qemu_version", "system", "architecture", "underlay_address")


def host_status(host: Host, view: View, settings: SchedulerSection, taken: Sequence[Placement]) -> Document:
    """``taken`` are the placements on it."""
    host_id = host.meta.id
    entry, registered = view.seen_hosts.get(host_id), view.registered.get(host_id)
    seen = entry.value if entry else None
    drain = _drain(host, view, settings)
    word, reason = _word(host, view, taken, drain)
    return {
        "word": word,
        "reason": reason,
        **_seen(seen),
        "claimed": {
            "cpus": sum(placement.cpus for placement in taken),
            "memory_mib": sum(placement.memory_mib for placement in taken),
            "disk_gib": sum(placement.disk_gib for placement in taken),
        },
        "vms": len(taken),
        "fence_s": float(registered.value.fence_s) if registered else 0.0,
        "drain": drain,
        "takeover": None if host_id in view.alive else to_plain(takeover_of(view, host_id)),
    }


def _seen(seen: SeenHost | None) -> Document:
    return {
        **{name: getattr(seen, name) if seen else 0 for name in _NUMBERS},
        **{name: getattr(seen, name) if seen else "" for name in _TEXTS},
        "problems": list(seen.problems) if seen else [],
        "last_report_at": seen.at if seen else "",
        "longest_gap_s": float(seen.longest_gap_s) if seen else 0.0,
        "pool": to_plain(seen.pool) if seen else None,
    }


def _drain(host: Host, view: View, settings: SchedulerSection) -> Document | None:
    if host.spec.drain is Drain.NONE:
        return None
    left = left_running(view, host.meta.id)
    stuck = blocked(view, host.meta.id, settings)
    return {
        "left": list(left),
        "moving": [vm_id for vm_id in left if is_migrating(view, vm_id)],
        "blocked": [{"vm_id": vm_id, "reason": reason} for vm_id, reason in stuck.items()],
    }


def _word(host: Host, view: View, taken: Sequence[Placement], drain: Document | None) -> tuple[str, str]:
    if host.meta.deleted_at:
        return "deleting", f"VMs still placed there: {len(taken)}; delete them, or wait" if taken else ""
    if host.meta.id not in view.alive:
        return _lost_word(host.meta.id, view)
    if drain is not None:
        return _drain_word(drain)
    return ("ready", "") if host.spec.schedulable else ("unschedulable", "it gets no new VMs")


def _lost_word(host_id: str, view: View) -> tuple[str, str]:
    if host_id not in view.registered and host_id not in view.seen_hosts:
        return "new", "it has not registered yet"
    takeover = takeover_of(view, host_id)
    if takeover is None:
        return "lost", "it gives no life sign"
    words = {TakeoverPhase.HELD: "held", TakeoverPhase.DONE: "taken_over"}
    until = f" (until {takeover.until})" if takeover.until else ""
    return words.get(takeover.phase, "lost"), takeover.reason + until


def _drain_word(drain: Document) -> tuple[str, str]:
    if not drain["left"]:
        return "drained", "nothing runs on it"
    left, moving, stuck = len(drain["left"]), len(drain["moving"]), len(drain["blocked"])
    return "draining", f"VMs left: {left}, moving: {moving}, blocked: {stuck}"
