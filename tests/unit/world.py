"""A small cloud in a memory store, for tests of what decides: put values, look at the view, run a pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ucloud.config import Config
from ucloud.control.decider import Decider
from ucloud.control.pool_fencing import PoolFencing
from ucloud.model.guard import Fenced, LifeSign, RunLock, Takeover
from ucloud.model.migration import Migration, MigrationRequest
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenHost, SeenNetwork, SeenVm
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Item, Put, Store, Txn
from ucloud.store.cache import Cache
from ucloud.store.codec import decode, encode
from ucloud.store.election import Election
from ucloud.store.memory import MemoryStore
from ucloud.store.view import PREFIXES, View, build_view
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.history import History

_NOUNS = {"Vm": "vm", "Network": "network", "Image": "image", "Key": "key", "Host": "host"}


class World:
    """Use it as a context: the cache and the election have threads."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.store = MemoryStore()
        self.clock = clock if clock else SystemClock()
        self.config = Config()
        self.cache: Cache[Any] = Cache(self.store, PREFIXES, lambda item: decode(item.value))
        self.election = Election(self.store, "scheduler", "test")
        self.decider = self.new_decider()

    def __enter__(self) -> World:
        self.cache.start()
        assert self.election.campaign(threading.Event())
        return self

    def __exit__(self, *_: object) -> None:
        self.election.resign()
        self.cache.stop()

    def new_decider(
        self, *, store: Store | None = None, pools: PoolFencing | None = None, history: History | None = None
    ) -> Decider:
        """As of a scheduler that has just begun: it remembers nothing."""
        return Decider(
            self.config, store if store else self.store, self.cache, self.clock, pools=pools, history=history
        )

    def put(self, *values: Any) -> None:
        for value in values:
            self.write(key_of(value), encode(value))

    def write(self, key: str, data: bytes) -> None:
        assert self.store.commit(Txn((), (Put(key, data),))).ok

    def delete(self, key: str) -> None:
        self.store.commit(Txn((), (Delete(key),)))

    def register(self, sign: LifeSign) -> None:
        """As a guard does."""
        registered = Put(keys.registered(sign.host_id), encode(sign))
        assert self.store.commit(Txn((), (Put(keys.alive(sign.host_id), encode(sign)), registered))).ok

    def lose(self, host_id: str) -> None:
        """The life sign of a host ends."""
        self.delete(keys.alive(host_id))

    def report(self, host_id: str, seen: SeenVm) -> None:
        self.write(keys.seen(host_id, "vm", seen.vm_id), encode(seen))

    def run_pass(self, leader: Compare | None = None) -> View:
        """A pass on what is in the store now; returns what is there after it."""
        self.next_pass(leader)
        return self.view()

    def next_pass(self, leader: Compare | None = None) -> float:
        """A pass; in how many seconds it wants the next one."""
        self.cache.wait_for(self.store.list(keys.ROOT).revision, 5.0)
        return self.decider.run_pass(leader or self.election.guard())

    def view(self) -> View:
        listing = self.store.list(keys.ROOT)
        items = [item for item in listing.items if item.key.startswith(PREFIXES) and item.value.startswith(b'{"kind"')]
        return build_view(listing.revision, [(item.key, decode(item.value), item.mod_revision) for item in items])

    def item(self, key: str) -> Item | None:
        return self.store.get(key)


_KEYS: Mapping[type, Callable[[Any], str]] = {
    Placement: lambda value: keys.placement(value.vm_id),
    LifeSign: lambda value: keys.alive(value.host_id),
    RunLock: lambda value: keys.lock(value.host_id, value.vm_id),
    Fenced: lambda value: keys.fenced(value.host_id, value.incarnation),
    Takeover: lambda value: keys.takeover(value.host_id),
    MigrationRequest: lambda value: keys.spec("migration", value.vm_id),
    Migration: lambda value: keys.migration(value.vm_id),
    SeenHost: lambda value: keys.seen(value.host_id, "host", "self"),
    SeenVm: lambda value: keys.seen("host-1", "vm", value.vm_id),
    SeenNetwork: lambda value: keys.seen("host-1", "network", value.network_id),
}


def key_of(value: Any) -> str:
    """Where a value is stored; reports are those of host-1 unless they name their host."""
    found = _KEYS.get(type(value))
    return found(value) if found else keys.spec(_NOUNS[type(value).__name__], value.meta.id)
