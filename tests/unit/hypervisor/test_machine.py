"""Machines: what is fixed stays fixed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.errors import Exhausted
from ucloud.hypervisor.machine import lowest_free_uid, new_machine, settled_machine, with_nics

MACHINE = new_machine("vm-a", uid=600_000, machine_type="pc-q35-7.2")
NICS = st.lists(st.sampled_from([f"nic-{number}" for number in range(15)]), unique=True, max_size=15)


def test_the_uuid_follows_from_the_id() -> None:
    assert new_machine("vm-a", uid=1, machine_type="x").uuid == MACHINE.uuid
    assert new_machine("vm-b", uid=1, machine_type="x").uuid != MACHINE.uuid


@given(st.lists(NICS, max_size=4))
def test_a_nic_that_stays_keeps_its_slot(boots: list[list[str]]) -> None:
    machine = MACHINE
    for nics in boots:
        before = machine
        machine = with_nics(machine, nics)
        assert set(nics) <= machine.slots.keys()
        assert len(set(machine.slots.values())) == len(machine.slots)
        assert all(machine.slots[name] == slot for name, slot in before.slots.items())
        assert with_nics(machine, nics) is machine


def test_slots_of_nics_that_left_are_used_when_there_are_no_others() -> None:
    full = with_nics(MACHINE, [f"old-{number}" for number in range(22)])
    again = with_nics(full, ["old-21", "new"])
    assert again.slots["old-21"] == full.slots["old-21"]
    assert again.slots["root"] == MACHINE.slots["root"]


def test_more_nics_than_slots_are_refused() -> None:
    with pytest.raises(Exhausted):
        with_nics(MACHINE, [f"nic-{number}" for number in range(23)])


@pytest.mark.parametrize(("taken", "uid"), [((), 10), ((10, 11), 12), ((11,), 10), ((10, 12), 11), ((5,), 10)])
def test_the_lowest_free_uid(taken: tuple[int, ...], uid: int) -> None:
    assert lowest_free_uid(10, taken) == uid


def test_a_machine_that_came_along_is_the_truth() -> None:
    stored = replace(MACHINE, uid=700_000, machine_type="pc-q35-6.0")
    assert settled_machine(None, None) is None
    assert settled_machine(MACHINE, None) is MACHINE
    assert settled_machine(None, stored) is stored
    assert settled_machine(MACHINE, stored) == stored
    assert settled_machine(stored, replace(stored)) is stored, "nothing to write"


def test_a_slot_that_the_store_does_not_know_yet_is_kept() -> None:
    here = with_nics(MACHINE, ["nic-new"])
    assert settled_machine(here, MACHINE) is here
    taken = with_nics(MACHINE, ["nic-other"])
    settled = settled_machine(here, taken)
    assert settled is not None
    assert settled.slots == taken.slots, "two devices in one slot would be no machine"
