"""One pass of the scheduler: which placements to write now. ``plan_pass`` is pure, ``commit_pass`` writes them.

A lost transaction is left alone: what it lost to wakes the next pass, which decides anew.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from ucloud.config import SchedulerSection
from ucloud.errors import Conflict, StoreError
from ucloud.model.placement import Placement
from ucloud.model.vm import Power, Vm
from ucloud.scheduler.plan import plan_placement
from ucloud.scheduler.snapshot import Snapshot, build_snapshot, resources_of
from ucloud.store import keys
from ucloud.store.api import Committed, Compare, Put, Store, Txn, unchanged
from ucloud.store.codec import encode
from ucloud.store.events import event_put
from ucloud.store.view import Entry, View
from ucloud.system.clock import Clock

logger = logging.getLogger(__name__)

BUDGET_VALUE = b"{}"  # only its revision counts


@dataclass(frozen=True, slots=True)
class Planned:
    """A placement to write, and what it was decided on."""

    vm: Entry[Vm]
    previous: Entry[Placement] | None
    placement: Placement


def snapshot_of(view: View, settings: SchedulerSection, silent: frozenset[str] = frozenset()) -> Snapshot:
    return build_snapshot(
        revision=view.revision,
        hosts=[entry.value for entry in view.hosts.values()],
        seen={host_id: entry.value for host_id, entry in view.seen_hosts.items()},
        alive=frozenset(view.alive),
        placements=[entry.value for entry in view.placements.values()],
        digests={image_id: entry.value.spec.digest for image_id, entry in view.images.items()},
        settings=settings,
        silent=silent,
    )


def plan_pass(
    view: View, settings: SchedulerSection, *, at: str, silent: frozenset[str] = frozenset()
) -> tuple[Planned, ...]:
    """Decisions for all VMs that need one, oldest first, each seeing the claims of those before it.

    ``silent`` are the hosts whose agents have reported nothing for a while.
    """
    snapshot = snapshot_of(view, settings, silent)
    planned = []
    for vm in sorted(view.vms.values(), key=lambda entry: (entry.value.meta.created_at, entry.value.meta.id)):
        previous = view.placements.get(vm.value.meta.id)
        if not _needs_decision(vm.value, previous.value if previous else None):
            continue
        before = previous.value if previous else None
        placement = plan_placement(vm.value, snapshot, previous=before, at=at)
        if before is not None and _says_the_same(before, placement):
            continue
        planned.append(Planned(vm, previous, placement))
        if placement.host_id:
            snapshot = _claim(snapshot, before, placement)
    return tuple(planned)


def _needs_decision(vm: Vm, placement: Placement | None) -> bool:
    if vm.meta.deleted_at:
        return False
    if placement is None:
        return vm.spec.power is Power.RUNNING
    return not placement.host_id or placement.spec_generation != vm.meta.generation


def _says_the_same(before: Placement, after: Placement) -> bool:
    """Only revision, generation and time differ: nobody needs to hear it again."""
    if (before.host_id, before.spec_generation) != (after.host_id, after.spec_generation):
        return False
    silent = replace(after.decision, revision=before.decision.revision)
    return replace(after, generation=before.generation, at=before.at, decision=silent) == before


def _claim(snapshot: Snapshot, before: Placement | None, after: Placement) -> Snapshot:
    amount = resources_of(after)
    if before is not None and before.host_id == after.host_id:
        amount = amount.minus(resources_of(before))
    if after.host_id not in snapshot.candidates:
        return snapshot
    return snapshot.with_claim(after.host_id, amount)


def commit_pass(
    store: Store, planned: tuple[Planned, ...], *, view_revision: int, leader: Compare, clock: Clock
) -> int:
    """Write each decision if its VM, its placement and its host's budget are as they were. The last revision."""
    budgets = Budgets(store, view_revision)
    revision = 0
    for plan in planned:
        vm_id = plan.vm.value.meta.id
        try:
            committed = _commit(store, plan, budgets, leader, clock)
        except (StoreError, Conflict) as error:
            logger.warning("vm %s: %s", vm_id, error.message)
            continue
        revision = committed.revision
        outcome = plan.placement.decision.reason if committed.ok else "changed meanwhile, decided again"
        logger.info("vm %s: %s", vm_id, outcome)
    return revision


def _commit(store: Store, plan: Planned, budgets: Budgets, leader: Compare, clock: Clock) -> Committed:
    key = keys.placement(plan.vm.value.meta.id)
    compares = [
        leader,
        unchanged(plan.vm.key, plan.vm.mod_revision),
        unchanged(key, plan.previous.mod_revision if plan.previous else 0),
    ]
    writes = [Put(key, encode(plan.placement)), *_events(plan, clock)]
    host_id = plan.placement.host_id
    if host_id:
        compares.append(budgets.compare(host_id))
        writes.append(Put(keys.budget(host_id), BUDGET_VALUE))
    committed = store.commit(Txn(tuple(compares), tuple(writes)))
    if committed.ok and host_id:
        budgets.written(host_id, committed.revision)
    return committed


class Budgets:
    """Law 12: what a host can hold is a sum over placements, made safe by a key that each of them rewrites.

    A budget that was written after the view was taken means placements that the view does not know.
    """

    def __init__(self, store: Store, view_revision: int) -> None:
        self._store = store
        self._view_revision = view_revision
        self._revisions: dict[str, int] = {}

    def compare(self, host_id: str) -> Compare:
        """Holds if nobody has placed anything on the host since the view. Raises Conflict if somebody has."""
        key = keys.budget(host_id)
        if host_id not in self._revisions:
            item = self._store.get(key)
            revision = item.mod_revision if item else 0
            if revision > self._view_revision:
                raise Conflict(f"failed to place on {host_id}: somebody else did meanwhile; decided again")
            self._revisions[host_id] = revision
        return unchanged(key, self._revisions[host_id])

    def written(self, host_id: str, revision: int) -> None:
        self._revisions[host_id] = revision


def _events(plan: Planned, clock: Clock) -> list[Put]:
    before = plan.previous.value.host_id if plan.previous else None
    if before == plan.placement.host_id:
        return []
    kind = "vm_placed" if plan.placement.host_id else "vm_unschedulable"
    meta = plan.vm.value.meta
    message = plan.placement.decision.reason
    return [event_put(clock, kind, message, about="vm", about_id=meta.id, project=meta.project, actor="scheduler")]
