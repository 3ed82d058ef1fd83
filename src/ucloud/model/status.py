"""The word shown to people for a VM, computed from spec, placement and what its host saw. Pure.

This is the only place where the three come together; nothing stores the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.condition import Condition
from ucloud.model.guard import Takeover, TakeoverPhase
from ucloud.model.migration import Migration
from ucloud.model.placement import Placement
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.vm import Failover, Power, Vm


class VmWord(StrEnum):
    SCHEDULING = "scheduling"
    UNSCHEDULABLE = "unschedulable"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"
    FAILED = "failed"
    LOST = "lost"
    MIGRATING = "migrating"
    DELETING = "deleting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class VmStatus:
    """``reason`` explains the word in a sentence; ``pending`` names spec changes that wait for the next boot."""

    word: VmWord
    reason: str
    conditions: tuple[Condition, ...]
    pending: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Facts:
    """All that the word is computed from."""

    vm: Vm
    placement: Placement | None
    seen: SeenVm | None
    host_alive: bool
    takeover: Takeover | None
    migration: Migration | None


def vm_status(
    vm: Vm,
    placement: Placement | None,
    seen: SeenVm | None,
    *,
    host_alive: bool,
    takeover: Takeover | None = None,
    migration: Migration | None = None,
) -> VmStatus:
    """``seen`` is what the placement's host reports, ``host_alive`` whether that gives a life sign, ``takeover`` the
    record about that host, ``migration`` the VM's own, over or not.
    """
    going = migration if migration is not None and not migration.is_over else None
    facts = _Facts(vm, placement, seen, host_alive, None if host_alive else takeover, going)
    word, reason = _word(facts)
    return VmStatus(word, reason, _conditions(facts), _pending(vm, seen))


def _word(facts: _Facts) -> tuple[VmWord, str]:
    vm, placement, seen = facts.vm, facts.placement, facts.seen
    if vm.meta.deleted_at:
        return VmWord.DELETING, _deleting_reason(facts)
    if placement is None:
        if vm.spec.power is Power.STOPPED:
            return VmWord.STOPPED, "never started"
        return VmWord.SCHEDULING, "waits for the scheduler"
    if not placement.host_id:
        return VmWord.UNSCHEDULABLE, placement.decision.reason
    if not facts.host_alive:
        return VmWord.LOST, _lost_reason(vm, placement.host_id, facts.takeover)
    if facts.migration is not None:
        return VmWord.MIGRATING, _migration_reason(facts.migration)
    if seen is None or seen.generation < placement.generation:
        return VmWord.PREPARING, f"waits for host {placement.host_id}"
    return _guest_word(vm, seen)


def _deleting_reason(facts: _Facts) -> str:
    host_id = facts.placement.host_id if facts.placement else ""
    if host_id and not facts.host_alive:
        was_taken_over = facts.takeover is not None and facts.takeover.phase is TakeoverPhase.DONE
        waits = f"its end waits until that {'' if was_taken_over else 'is taken over, '}returns, or is confirmed off"
        return f"host {host_id} gives no life sign: {waits}"
    return (facts.seen.reason if facts.seen else "") or "waits until nothing of it is left on its host"


def _lost_reason(vm: Vm, host_id: str, takeover: Takeover | None) -> str:
    """What it waits for. After the takeover only those are still lost that cannot be started elsewhere."""
    gone = f"host {host_id} gives no life sign"
    if vm.spec.failover is Failover.NONE:
        return f"{gone}: it returns with that host, for its failover is none"
    if takeover is None:
        return gone
    if takeover.phase is TakeoverPhase.DONE:
        return f"{gone}: it returns with that host, or its disk is in a pool that no other host has"
    return f"{gone}: {takeover.reason}"


def _migration_reason(migration: Migration) -> str:
    return f"{migration.phase.value}, from host {migration.source} to host {migration.target}: {migration.reason}"


def _guest_word(vm: Vm, seen: SeenVm) -> tuple[VmWord, str]:
    if seen.state is GuestState.GONE:
        return VmWord.PREPARING, seen.reason
    if seen.state is GuestState.RUNNING and vm.spec.power is Power.STOPPED:
        return VmWord.STOPPING, "asked to stop"
    if seen.state is GuestState.RUNNING and seen.boots < vm.spec.boots:
        return VmWord.STOPPING, f"asked to boot again, as boot {vm.spec.boots}"
    if seen.state is GuestState.STOPPED and vm.spec.power is Power.RUNNING and seen.boots < vm.spec.boots:
        return VmWord.STARTING, f"waits for its start {vm.spec.boots}"
    return VmWord(seen.state.value), seen.reason


def _conditions(facts: _Facts) -> tuple[Condition, ...]:
    placement, seen, migration = facts.placement, facts.seen, facts.migration
    placed = placement is not None and bool(placement.host_id)
    reason, at = (placement.decision.reason, placement.at) if placement else ("", "")
    conditions = [Condition("placed", placed, reason, at)]
    if placed:
        conditions.append(_host_condition(facts))
    if migration is not None:
        conditions.append(
            Condition("migrating", True, _migration_reason(migration), migration.started_at, migration.until)
        )
    if seen:
        running = seen.state is GuestState.RUNNING
        pending = _pending(facts.vm, seen)
        conditions.append(Condition("running", running, seen.reason, seen.since, seen.until))
        conditions.append(Condition("up_to_date", not pending, ", ".join(pending)))
    return tuple(conditions)


def _host_condition(facts: _Facts) -> Condition:
    takeover = facts.takeover
    if takeover is None:
        return Condition("host_alive", facts.host_alive, "")
    return Condition("host_alive", facts.host_alive, takeover.reason, takeover.lost_at, takeover.until)


def _pending(vm: Vm, seen: SeenVm | None) -> tuple[str, ...]:
    """Sizes that the running guest does not have yet: they need a stop and a start."""
    if seen is None or seen.state is not GuestState.RUNNING:
        return ()
    wanted = {"cpus": vm.spec.cpus, "memory_mib": vm.spec.memory_mib, "disk_gib": vm.spec.disk_gib}
    return tuple(name for name, value in wanted.items() if value != getattr(seen, name))
