"""The word shown to people for a VM, computed from spec, placement and what its host saw. Pure.

This is the only place where the three come together; nothing stores the word.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.condition import Condition
from ucloud.model.placement import Placement
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.vm import Power, Vm


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
    DELETING = "deleting"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class VmStatus:
    """``reason`` explains the word in a sentence; ``pending`` names spec changes that wait for the next boot."""

    word: VmWord
    reason: str
    conditions: tuple[Condition, ...]
    pending: tuple[str, ...] = ()


def vm_status(vm: Vm, placement: Placement | None, seen: SeenVm | None, *, host_alive: bool) -> VmStatus:
    """``seen`` is the report of the placement's host, None if it has not reported."""
    word, reason = _word(vm, placement, seen, host_alive=host_alive)
    return VmStatus(word, reason, _conditions(vm, placement, seen, host_alive), _pending(vm, seen))


def _word(vm: Vm, placement: Placement | None, seen: SeenVm | None, *, host_alive: bool) -> tuple[VmWord, str]:
    if vm.meta.deleted_at:
        return VmWord.DELETING, (seen.reason if seen else "") or "waits until nothing of it is left on its host"
    if placement is None:
        if vm.spec.power is Power.STOPPED:
            return VmWord.STOPPED, "never started"
        return VmWord.SCHEDULING, "waits for the scheduler"
    if not placement.host_id:
        return VmWord.UNSCHEDULABLE, placement.decision.reason
    if not host_alive:
        return VmWord.LOST, f"host {placement.host_id} gives no life sign"
    if seen is None or seen.generation < placement.generation:
        return VmWord.PREPARING, f"waits for host {placement.host_id}"
    return _guest_word(vm, seen)


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


def _conditions(vm: Vm, placement: Placement | None, seen: SeenVm | None, host_alive: bool) -> tuple[Condition, ...]:
    placed = placement is not None and bool(placement.host_id)
    conditions = [
        Condition(
            "placed",
            placed,
            placement.decision.reason if placement else "",
            placement.at if placement else "",
        )
    ]
    if placed:
        conditions.append(Condition("host_alive", host_alive, ""))
    if seen:
        running = seen.state is GuestState.RUNNING
        conditions.append(Condition("running", running, seen.reason, seen.since, seen.until))
        conditions.append(Condition("up_to_date", not _pending(vm, seen), ", ".join(_pending(vm, seen))))
    return tuple(conditions)


def _pending(vm: Vm, seen: SeenVm | None) -> tuple[str, ...]:
    """Sizes that the running guest does not have yet: they need a stop and a start."""
    if seen is None or seen.state is not GuestState.RUNNING:
        return ()
    wanted = {"cpus": vm.spec.cpus, "memory_mib": vm.spec.memory_mib, "disk_gib": vm.spec.disk_gib}
    return tuple(name for name, value in wanted.items() if value != getattr(seen, name))
