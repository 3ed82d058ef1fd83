"""The report of a VM."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.hypervisor.wishes import VM_ID, at, wanted
from ucloud.hypervisor.actions import Guest, ObservedVm, Plan
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.machine import new_machine
from ucloud.hypervisor.plan import plan_vm
from ucloud.hypervisor.record import VmRecord
from ucloud.hypervisor.seen import summarise
from ucloud.model.migration import MigrationState, Role, SeenMigration
from ucloud.model.seen import GuestState
from ucloud.model.vm import Failover, Power

MACHINE = new_machine(VM_ID, uid=600_000, machine_type="pc-q35-7.2")
RECORD = VmRecord(VM_ID, generation=1, boots=1, cpus=2, memory_mib=256, disk_gib=1, accelerator="tcg", started_at="t")
PROCESS = VmProcess(VM_ID, 1, 1, "inc", Failover.RESTART, 4711, True, "t")
RUNNING = ObservedVm(VM_ID, RECORD, True, PROCESS, Guest.RUNNING, "7.2.22")


def test_a_running_guest_shows_what_it_has_not_what_is_wanted() -> None:
    wish = wanted(cpus=8, memory_mib=4096, spec_generation=5)
    seen = summarise(
        plan_vm(wish, RUNNING, at(0)), RUNNING, wish, machine=MACHINE, previous=None, now=at(0), wanted_revision=17
    )
    assert (seen.state, seen.cpus, seen.memory_mib, seen.spec_generation) == (GuestState.RUNNING, 2, 256, 5)
    assert (seen.machine_type, seen.qemu_version, seen.accelerator) == ("pc-q35-7.2", "7.2.22", "tcg")
    assert (seen.since, seen.wanted_revision) == ("2026-01-31T12:00:00.000Z", 17)


def test_since_is_when_the_state_began() -> None:
    wish = wanted()
    first = summarise(plan_vm(wish, RUNNING, at(0)), RUNNING, wish, machine=MACHINE, previous=None, now=at(0))
    later = summarise(plan_vm(wish, RUNNING, at(9)), RUNNING, wish, machine=MACHINE, previous=first, now=at(9))
    assert later == first
    wish = wanted(power=Power.STOPPED)
    stopping = summarise(plan_vm(wish, RUNNING, at(9)), RUNNING, wish, machine=MACHINE, previous=later, now=at(9))
    assert (stopping.state, stopping.since) == (GuestState.STOPPING, "2026-01-31T12:00:09.000Z")


def test_nothing_runs() -> None:
    observed = ObservedVm(VM_ID, RECORD, has_files=True)
    wish = wanted(power=Power.STOPPED)
    seen = summarise(plan_vm(wish, observed, at(0)), observed, wish, machine=MACHINE, previous=None, now=at(0))
    assert (seen.state, seen.cpus, seen.qemu_version, seen.boots) == (GuestState.STOPPED, 0, "", 1)


def test_without_a_document_the_record_speaks() -> None:
    observed = replace(RUNNING, record=replace(RECORD, spec_generation=3))
    seen = summarise(plan_vm(None, observed, at(0)), observed, None, machine=None, previous=None, now=at(0))
    assert (seen.generation, seen.spec_generation, seen.state) == (1, 3, GuestState.RUNNING)
    assert "no document" in seen.reason


def test_what_was_counted_of_a_migration_outlives_its_qemu() -> None:
    sent = SeenMigration("m1", Role.SOURCE, MigrationState.COMPLETED, "", 60, 64, 12)

    def report(part: SeenMigration, previous: SeenMigration) -> SeenMigration | None:
        before = summarise(plan_vm(None, RUNNING, at(0)), RUNNING, None, machine=None, previous=None, now=at(0))
        plan = Plan(GuestState.STOPPED, migration=part)
        observed = replace(RUNNING, process=None)
        before = replace(before, migration=previous)
        return summarise(plan, observed, None, machine=None, previous=before, now=at(1)).migration

    ended = SeenMigration("m1", Role.SOURCE, MigrationState.COMPLETED, "it was moved")
    assert report(ended, sent) == replace(sent, reason="it was moved")
    other = replace(ended, id="m2")
    assert report(other, sent) == other
    newer = replace(sent, sent_mib=64, downtime_ms=15)
    assert report(newer, sent) == newer
