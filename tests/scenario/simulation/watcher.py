"""A client's copy of the store, as late as its member and its network make it: what caches and watches give."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from tests.scenario.simulation.engine import Engine, Place
from tests.scenario.simulation.etcd import Cluster
from tests.scenario.simulation.network import Network
from ucloud.store import keys
from ucloud.store.codec import decode
from ucloud.store.view import PREFIXES, View, build_view

_AGAIN_S = 0.5
_PREFIXES = (*PREFIXES, keys.election("scheduler"))


@lru_cache(maxsize=4096)
def value_of(data: bytes) -> Any:
    """Values are frozen, and most are read often."""
    return decode(data)


class Hub:
    """Tells every watcher that there is something new."""

    def __init__(self, cluster: Cluster) -> None:
        self._watchers: list[Watcher] = []
        cluster.ledger.on_change = self._changed
        self.tell_store: Callable[[str, Any, int], None] = lambda key, item, revision: None

    def add(self, watcher: Watcher) -> None:
        self._watchers = [one for one in self._watchers if not one.place.is_dead]
        self._watchers.append(watcher)

    def _changed(self, key: str, item: Any, revision: int) -> None:
        self.tell_store(key, item, revision)
        if key.startswith(_PREFIXES):
            for watcher in self._watchers:
                if key.startswith(watcher.prefixes):
                    watcher.wake()


class Watcher:
    """``on_change`` is called with the changed keys whenever the copy moved on."""

    def __init__(
        self,
        engine: Engine,
        network: Network,
        cluster: Cluster,
        *,
        node: str,
        place: Place,
        on_change: Callable[[list[str]], None],
        prefixes: tuple[str, ...] = PREFIXES,
    ) -> None:
        self._engine, self._network, self._cluster = engine, network, cluster
        self._node = node
        self.place = place
        self.prefixes = prefixes
        self._on_change = on_change
        self._members = list(cluster.members)
        self._member = engine.chance.randrange(len(self._members))
        self._asked = False
        self._read_to = 0
        self.revision = 0
        self.values: dict[str, tuple[Any, int]] = {}

    def wake(self) -> None:
        if not self._asked:
            self._asked = True
            self._engine.after(self._engine.span_s(0.001, 0.01), self._catch_up, place=self.place)

    def _catch_up(self) -> None:
        self._asked = False
        if not self._is_served():
            self._member = (self._member + 1) % len(self._members)
            self._asked = True
            self._engine.after(_AGAIN_S, self._catch_up, place=self.place)
            return
        ledger = self._cluster.ledger
        changed = [(key, item) for _, key, item in ledger.log[self._read_to :] if key.startswith(self.prefixes)]
        self._read_to, self.revision = len(ledger.log), ledger.revision
        for key, item in changed:
            if item is None:
                self.values.pop(key, None)
            else:
                self.values[key] = (value_of(item.value), item.mod_revision)
        if changed:
            self._on_change([key for key, _ in changed])

    def _is_served(self) -> bool:
        """A member that has lost the leader tells nothing new."""
        member, leader = self._cluster.members[self._members[self._member]], self._cluster.leader
        up = member.running and not member.place.is_frozen
        if leader is None or not up or not self._network.both_ways(self._node, member.name):
            return False
        return self._network.both_ways(member.name, leader.name) and self._cluster.has_majority(leader)

    def view(self) -> View:
        """The values of the prefixes, as the scheduler's cache would give them."""
        return build_view(self.revision, ((key, value, revision) for key, (value, revision) in self.values.items()))

    def get(self, key: str) -> Any:
        found = self.values.get(key)
        return found[0] if found else None
