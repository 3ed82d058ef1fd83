"""A small cloud in a memory store, for tests of what decides: put values, look at the view, run a pass."""

from __future__ import annotations

import threading
from typing import Any

from ucloud.config import Config
from ucloud.control.decider import Decider
from ucloud.model.guard import LifeSign
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenHost, SeenNetwork, SeenVm
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Item, Put, Txn
from ucloud.store.cache import Cache
from ucloud.store.codec import decode, encode
from ucloud.store.election import Election
from ucloud.store.memory import MemoryStore
from ucloud.store.view import PREFIXES, View, build_view
from ucloud.system.clock import SystemClock

_NOUNS = {"Vm": "vm", "Network": "network", "Image": "image", "Key": "key", "Host": "host"}


class World:
    """Use it as a context: the cache and the election have threads."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.config = Config()
        self.cache: Cache[Any] = Cache(self.store, PREFIXES, lambda item: decode(item.value))
        self.election = Election(self.store, "scheduler", "test")
        self.decider = Decider(self.config, self.store, self.cache, SystemClock())

    def __enter__(self) -> World:
        self.cache.start()
        assert self.election.campaign(threading.Event())
        return self

    def __exit__(self, *_: object) -> None:
        self.election.resign()
        self.cache.stop()

    def put(self, *values: Any) -> None:
        for value in values:
            self.write(key_of(value), encode(value))

    def write(self, key: str, data: bytes) -> None:
        assert self.store.commit(Txn((), (Put(key, data),))).ok

    def delete(self, key: str) -> None:
        self.store.commit(Txn((), (Delete(key),)))

    def run_pass(self, leader: Compare | None = None) -> View:
        """A pass on what is in the store now; returns what is there after it."""
        self.cache.wait_for(self.store.list(keys.ROOT).revision, 5.0)
        self.decider.run_pass(leader or self.election.guard())
        return self.view()

    def view(self) -> View:
        listing = self.store.list(keys.ROOT)
        items = [item for item in listing.items if item.key.startswith(PREFIXES) and item.value.startswith(b'{"kind"')]
        return build_view(listing.revision, [(item.key, decode(item.value), item.mod_revision) for item in items])

    def item(self, key: str) -> Item | None:
        return self.store.get(key)


def key_of(value: Any) -> str:
    """Where a value is stored; reports are those of host-1 unless they name their host."""
    if isinstance(value, Placement):
        return keys.placement(value.vm_id)
    if isinstance(value, LifeSign):
        return keys.alive(value.host_id)
    if isinstance(value, SeenHost):
        return keys.seen(value.host_id, "host", "self")
    if isinstance(value, SeenVm):
        return keys.seen("host-1", "vm", value.vm_id)
    if isinstance(value, SeenNetwork):
        return keys.seen("host-1", "network", value.network_id)
    return keys.spec(_NOUNS[type(value).__name__], value.meta.id)
