"""Writes of an API node whose answers were given to somebody: none may be lost, whatever etcd went through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.scenario.simulation.door import Door
from tests.scenario.simulation.engine import Place
from ucloud.store import keys
from ucloud.store.api import Committed, Put, Txn, absent

if TYPE_CHECKING:
    from tests.scenario.simulation.cloud import Cloud


class ApiWrite:
    """One object, written once. Not known for sure is not acknowledged."""

    def __init__(self, cloud: Cloud, number: str) -> None:
        self._cloud = cloud
        self._id = f"write-{number}"

    def begin(self) -> None:
        cloud = self._cloud
        key = keys.claims("written") + self._id

        def written(answer: Any) -> None:
            if isinstance(answer, Committed) and answer.ok:
                cloud.tell("write_acked", id=self._id, key=key)

        door = Door(cloud.engine, cloud.cluster, node="a1", place=Place("a1"), tell=cloud.tell)
        door.run(lambda one: one.commit(Txn((absent(key),), (Put(key, b"{}"),))), written)


def tell_found(cloud: Cloud) -> None:
    """At the end: every write that is there."""
    for key in cloud.cluster.ledger.items:
        if key.startswith(keys.claims("written")):
            cloud.tell("write_found", id=keys.last_segment(key))
