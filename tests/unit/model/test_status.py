"""The one word for a VM, for every combination that can be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit import samples
from ucloud.model.placement import Placement
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.status import VmWord, vm_status
from ucloud.model.vm import Power, Vm

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
