"""A step of a live migration as a value, and how steps are committed: one transaction each, never twice.

Must hold: what lost its compares, or got no answer, is left alone. The next pass reads again, and whatever it then
decides compares the same record: of a late commit and a new decision only one can happen.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from ucloud.errors import Conflict, StoreError
from ucloud.model.migration import Migration, Phase
from ucloud.scheduler.budgets import BUDGET_VALUE, Budgets
from ucloud.store import keys
from ucloud.store.api import Committed, Compare, Delete, Put, Store, Txn
from ucloud.store.codec import encode
from ucloud.store.events import event_put
from ucloud.system.clock import Clock
from ucloud.system.history import History

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """``record`` in place of what is there; None if it is old and goes. ``writes`` happen with it or not at all.

    ``claims_on`` is a host on which the VM takes room from now on; ``told`` is the sentence of its event, "" for none.
    """

    vm_id: str
    record: Migration | None
    compares: tuple[Compare, ...]
    writes: tuple[Put | Delete, ...] = ()
    claims_on: str = ""
    told: str = ""
    project: str = ""


def passed_s(moment: str, now: datetime.datetime) -> float:
    """How long ago an RFC 3339 time was; negative if it is to come."""
    return (now - datetime.datetime.fromisoformat(moment)).total_seconds()


def commit_migrations(
    store: Store, steps: Iterable[Step], *, view_revision: int, leader: Compare, clock: Clock, history: History
) -> int:
    """Write each step if all it was decided on is as it was; the last revision, 0 if nothing was written."""
    budgets = Budgets(store, view_revision)
    revision = 0
    for step in steps:
        try:
            committed = _commit(store, step, budgets, leader, clock)
        except (StoreError, Conflict) as error:
            logger.warning("migration of %s: %s", step.vm_id, error.message)
            continue
        logger.info("migration of %s: %s", step.vm_id, step.told if committed.ok else "changed meanwhile")
        if committed.ok:
            revision = committed.revision
            _tell(history, step.record)
    return revision


def _commit(store: Store, step: Step, budgets: Budgets, leader: Compare, clock: Clock) -> Committed:
    key = keys.migration(step.vm_id)
    compares = [leader, *step.compares]
    writes = [*step.writes, Put(key, encode(step.record)) if step.record else Delete(key), *_events(step, clock)]
    if step.claims_on:
        compares.append(budgets.compare(step.claims_on))
        writes.append(Put(keys.budget(step.claims_on), BUDGET_VALUE))
    committed = store.commit(Txn(tuple(compares), tuple(writes)))
    if committed.ok and step.claims_on:
        budgets.written(step.claims_on, committed.revision)
    return committed


def _events(step: Step, clock: Clock) -> list[Put]:
    if step.record is None or not step.told:
        return []
    kind = f"vm_migration_{step.record.phase.value}"
    return [event_put(clock, kind, step.told, about="vm", about_id=step.vm_id, project=step.project, actor="scheduler")]


def _tell(history: History, record: Migration | None) -> None:
    if record is not None and record.phase is Phase.MOVED:
        history.tell(
            "moved",
            vm=record.vm_id,
            source=record.source,
            host=record.target,
            incarnation=record.target_incarnation,
            generation=record.generation + 1,
        )
