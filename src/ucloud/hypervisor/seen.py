"""What to report of a VM after a pass: a pure summary of plan and observation."""

from __future__ import annotations

from dataclasses import replace

from ucloud.hypervisor.actions import Now, ObservedVm, Plan
from ucloud.model.machine import Machine
from ucloud.model.migration import SeenMigration
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.wanted import WantedVm
from ucloud.system.clock import format_time


def summarise(
    plan: Plan,
    observed: ObservedVm,
    wanted: WantedVm | None,
    *,
    machine: Machine | None,
    previous: SeenVm | None,
    now: Now,
    wanted_revision: int = 0,
) -> SeenVm:
    """The report; ``wanted_revision`` is the store's revision of ``wanted``.

    ``since`` is kept from ``previous`` while the state is the same.
    """
    record, process = observed.record, observed.process
    runs = process is not None and process.running
    since = previous.since if previous and previous.state is plan.state else format_time(now.wall)
    return SeenVm(
        vm_id=observed.vm_id,
        generation=wanted.generation if wanted else record.generation,
        spec_generation=wanted.spec_generation if wanted else record.spec_generation,
        state=plan.state,
        reason=plan.reason,
        since=since,
        until=plan.until,
        boots=process.boots if process else record.boots,
        restarts=record.restarts,
        cpus=record.cpus if runs else 0,
        memory_mib=record.memory_mib if runs else 0,
        disk_gib=record.disk_gib,
        wanted_revision=wanted_revision,
        accelerator=record.accelerator if runs else "",
        machine_type=machine.machine_type if machine else "",
        cpu_model=machine.cpu_model if machine else "",
        qemu_version=observed.qemu_version,
        started_at=record.started_at if plan.state is not GuestState.GONE else "",
        machine=machine,
        migration=_with_counts(plan.migration, previous.migration if previous else None),
    )


def _with_counts(part: SeenMigration | None, before: SeenMigration | None) -> SeenMigration | None:
    """What QEMU has counted is known after its end, too."""
    if part is None or before is None or part.total_mib or (part.id, part.role) != (before.id, before.role):
        return part
    return replace(part, sent_mib=before.sent_mib, total_mib=before.total_mib, downtime_ms=before.downtime_ms)
