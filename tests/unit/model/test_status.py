"""The one word for a VM, for every combination that can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit import samples
from ucloud.model.guard import Takeover, TakeoverPhase
from ucloud.model.migration import Phase
from ucloud.model.placement import Placement
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.status import VmWord, vm_status
from ucloud.model.vm import Failover, Power, Vm

VM, PLACED, SEEN = samples.VM, samples.PLACEMENT, samples.SEEN_VM
STOPPED_VM = replace(VM, spec=replace(VM.spec, power=Power.STOPPED))
DELETED = replace(VM, meta=replace(VM.meta, deleted_at=samples.AT))
NEXT_BOOT = replace(VM, spec=replace(VM.spec, boots=2))
NOWHERE = replace(PLACED, host_id="")


def in_state(state: GuestState, reason: str = "because") -> SeenVm:
    return replace(SEEN, state=state, reason=reason)


@pytest.mark.parametrize(
    ("vm", "placement", "seen", "alive", "word"),
    [
        (VM, None, None, False, VmWord.SCHEDULING),
        (STOPPED_VM, None, None, False, VmWord.STOPPED),
        (VM, NOWHERE, None, False, VmWord.UNSCHEDULABLE),
        (VM, PLACED, None, True, VmWord.PREPARING),
        (VM, PLACED, replace(SEEN, generation=0), True, VmWord.PREPARING),
        (VM, PLACED, SEEN, True, VmWord.RUNNING),
        (VM, PLACED, SEEN, False, VmWord.LOST),
        (STOPPED_VM, PLACED, SEEN, True, VmWord.STOPPING),
        (NEXT_BOOT, PLACED, SEEN, True, VmWord.STOPPING),
        (NEXT_BOOT, PLACED, in_state(GuestState.STOPPED), True, VmWord.STARTING),
        (VM, PLACED, in_state(GuestState.STOPPED), True, VmWord.STOPPED),
        (VM, PLACED, in_state(GuestState.CRASHED), True, VmWord.CRASHED),
        (VM, PLACED, in_state(GuestState.FAILED), True, VmWord.FAILED),
        (VM, PLACED, in_state(GuestState.GONE), True, VmWord.PREPARING),
        (VM, PLACED, in_state(GuestState.UNKNOWN), True, VmWord.UNKNOWN),
        (DELETED, PLACED, SEEN, True, VmWord.DELETING),
        (DELETED, None, None, False, VmWord.DELETING),
    ],
)
def test_word(vm: Vm, placement: Placement | None, seen: SeenVm | None, alive: bool, word: VmWord) -> None:
    status = vm_status(vm, placement, seen, host_alive=alive)
    assert status.word is word
    if word is not VmWord.RUNNING:
        assert status.reason, "every state has a reason"


@pytest.mark.parametrize("state", GuestState)
def test_every_guest_state_has_a_word(state: GuestState) -> None:
    vm_status(VM, PLACED, in_state(state), host_alive=True)


def test_sizes_that_wait_for_the_next_start_are_named() -> None:
    larger = replace(VM, spec=replace(VM.spec, memory_mib=1024, cpus=4))
    assert vm_status(larger, PLACED, SEEN, host_alive=True).pending == ("cpus", "memory_mib")
    stopped = in_state(GuestState.STOPPED)
    assert vm_status(larger, PLACED, stopped, host_alive=True).pending == ()


LATER = "2026-01-31T12:00:03.500Z"
WAITING = replace(samples.TAKEOVER, reason="it has 3.5 s to end what may run elsewhere", until=LATER)
ONLY_THERE = replace(VM, spec=replace(VM.spec, failover=Failover.NONE))


@pytest.mark.parametrize(
    ("vm", "takeover", "words"),
    [
        (VM, None, "gives no life sign"),
        (VM, WAITING, "it has 3.5 s to end"),
        (VM, replace(WAITING, phase=TakeoverPhase.DONE), "returns with that host"),
        (ONLY_THERE, WAITING, "its failover is none"),
    ],
)
def test_a_lost_vm_says_what_it_waits_for(vm: Vm, takeover: Takeover | None, words: str) -> None:
    status = vm_status(vm, PLACED, SEEN, host_alive=False, takeover=takeover)
    assert status.word is VmWord.LOST
    assert words in status.reason
    if takeover is not None:
        host = next(one for one in status.conditions if one.type == "host_alive")
        assert (host.status, host.until) == (False, LATER)


def test_an_old_takeover_is_not_shown_for_a_host_that_lives() -> None:
    status = vm_status(VM, PLACED, SEEN, host_alive=True, takeover=WAITING)
    assert status.word is VmWord.RUNNING
    assert all(one.until != LATER for one in status.conditions)


def test_a_vm_that_was_placed_anew_is_prepared_there() -> None:
    anew = replace(PLACED, host_id="host-2", generation=2)
    assert vm_status(VM, anew, None, host_alive=True).word is VmWord.PREPARING


@pytest.mark.parametrize("phase", Phase)
def test_a_migration_is_shown_until_it_is_over(phase: Phase) -> None:
    record = replace(samples.MIGRATION, phase=phase)
    status = vm_status(VM, PLACED, SEEN, host_alive=True, migration=record)
    assert (status.word is VmWord.MIGRATING) is not record.is_over
    if not record.is_over:
        assert "from host host-1 to host host-2" in status.reason
        assert any(one.type == "migrating" and one.until for one in status.conditions)


def test_a_lost_host_is_told_before_its_migrations() -> None:
    status = vm_status(VM, PLACED, SEEN, host_alive=False, migration=samples.MIGRATION)
    assert status.word is VmWord.LOST


def test_a_deleted_vm_on_a_lost_host_says_what_it_waits_for() -> None:
    assert "confirmed off" in vm_status(DELETED, PLACED, SEEN, host_alive=False).reason
