"""Writes decided placements: those of one host together, each only if what it was decided on is as it was.

Keys: placement/…, budget/<host>, and events. Must hold: no host is given more than it can hold, whoever else places.
A lost transaction is tried one by one and then left alone: what it lost to wakes the next pass, which decides anew.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from ucloud.errors import Conflict, StoreError
from ucloud.scheduler.budgets import BUDGET_VALUE, Budgets
from ucloud.scheduler.passes import Planned
from ucloud.store import keys
from ucloud.store.api import Committed, Compare, Put, Store, Txn, unchanged
from ucloud.store.codec import encode
from ucloud.store.events import event_put
from ucloud.system.clock import Clock
from ucloud.system.history import History, Silence

logger = logging.getLogger(__name__)

BATCH_PLACEMENTS = 48  # with an event each and the budget: not more than 100 writes
_NOBODY = Silence()


def commit_pass(
    store: Store,
    planned: Sequence[Planned],
    *,
    view_revision: int,
    leader: Compare,
    clock: Clock,
    history: History = _NOBODY,
) -> int:
    """Write each decision if its VM, its placement and its host's budget are as they were. The last revision."""
    writer = _Writer(store, Budgets(store, view_revision), leader, clock, history)
    return max((writer.write(batch) for batch in _batches(planned)), default=0)


def _batches(planned: Sequence[Planned]) -> Iterator[tuple[Planned, ...]]:
    """Those of one host together, in the order of the most urgent of each."""
    by_host: dict[str, list[Planned]] = {}
    for plan in planned:
        by_host.setdefault(plan.placement.host_id, []).append(plan)
    for plans in by_host.values():
        for start in range(0, len(plans), BATCH_PLACEMENTS):
            yield tuple(plans[start : start + BATCH_PLACEMENTS])


class _Writer:
    """The transactions of one pass."""

    def __init__(self, store: Store, budgets: Budgets, leader: Compare, clock: Clock, history: History) -> None:
        self._store = store
        self._budgets = budgets
        self._leader = leader
        self._clock = clock
        self._history = history

    def write(self, batch: Sequence[Planned]) -> int:
        """The last revision; 0 if nothing was written."""
        try:
            committed = self._commit(batch)
        except (StoreError, Conflict) as error:
            logger.warning("placing %s: %s", ", ".join(plan.vm.value.meta.id for plan in batch), error.message)
            committed = Committed(False, 0)
        if not committed.ok and len(batch) > 1:
            return max(self.write((plan,)) for plan in batch)
        for plan in batch:
            self._tell(plan, committed.ok)
        return committed.revision if committed.ok else 0

    def _commit(self, batch: Sequence[Planned]) -> Committed:
        host_id = batch[0].placement.host_id
        compares = [self._leader, *(compare for plan in batch for compare in _compares(plan))]
        writes = [put for plan in batch for put in _writes(plan, self._clock)]
        if host_id:
            compares.append(self._budgets.compare(host_id))
            writes.append(Put(keys.budget(host_id), BUDGET_VALUE))
        committed = self._store.commit(Txn(tuple(dict.fromkeys(compares)), tuple(writes)))
        if committed.ok and host_id:
            self._budgets.written(host_id, committed.revision)
        return committed

    def _tell(self, plan: Planned, done: bool) -> None:
        placement = plan.placement
        logger.info("vm %s: %s", placement.vm_id, placement.decision.reason if done else "decided again later")
        if done and _moves(plan):
            self._history.tell("placed", vm=placement.vm_id, host=placement.host_id, generation=placement.generation)


def _compares(plan: Planned) -> tuple[Compare, ...]:
    previous = unchanged(keys.placement(plan.placement.vm_id), plan.previous.mod_revision if plan.previous else 0)
    return unchanged(plan.vm.key, plan.vm.mod_revision), previous, *plan.compares


def _writes(plan: Planned, clock: Clock) -> list[Put]:
    writes = [Put(keys.placement(plan.placement.vm_id), encode(plan.placement))]
    if _moves(plan):
        kind = "vm_placed" if plan.placement.host_id else "vm_unschedulable"
        meta = plan.vm.value.meta
        message = plan.placement.decision.reason
        writes.append(
            event_put(clock, kind, message, about="vm", about_id=meta.id, project=meta.project, actor="scheduler")
        )
    return writes


def _moves(plan: Planned) -> bool:
    before = plan.previous.value.host_id if plan.previous else None
    return before != plan.placement.host_id
