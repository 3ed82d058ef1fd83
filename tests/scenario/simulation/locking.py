"""The real run locks, also on a store that forgets some of their compares: for rules that are switched off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.scenario.simulation.door import Door
from tests.scenario.simulation.switches import Rules
from ucloud.agent.locks import Locks
from ucloud.model.placement import Placement
from ucloud.model.vm import Failover
from ucloud.store import keys
from ucloud.store.api import Txn


def take_lock(store: Any, host: str, placement: Placement, *, incarnation: str, failover: Failover) -> None:
    Locks(store, host, store).take(
        placement.vm_id,
        generation=placement.generation,
        incarnation=incarnation,
        failover=failover,
        pool_id=placement.pool_id,
    )


def is_strict(rules: Rules) -> bool:
    return bool(rules.placement_is_compared_at_lock and rules.fenced_mark_is_compared)


class LaxDoor:
    """A store on which one compare of the run lock is forgotten."""

    def __init__(self, door: Door, rules: Rules) -> None:
        self._door = door
        self._rules = rules
        self.get, self.list, self.read, self.tell = door.get, door.list, door.read, door.tell

    def commit(self, txn: Txn) -> Any:
        forgotten = []
        if not self._rules.placement_is_compared_at_lock:
            forgotten.append(keys.placements())
        if not self._rules.fenced_mark_is_compared:
            forgotten.append(keys.fenced_all())
        kept = tuple(compare for compare in txn.compares if not compare.key.startswith(tuple(forgotten)))
        return self._door.commit(replace(txn, compares=kept))
