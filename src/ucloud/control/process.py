"""``ucloud scheduler``: campaign, and while elected run a pass at each wake-up and at least every few seconds."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any

from ucloud.config import Config
from ucloud.control.decider import RESYNC_S, Decider
from ucloud.control.pool_fencing import PoolFencing
from ucloud.errors import Unavailable
from ucloud.reconcile.loop import Loop
from ucloud.storage.fence_client import open_fence
from ucloud.store.cache import Cache
from ucloud.store.codec import decode
from ucloud.store.connect import open_store
from ucloud.store.election import Election
from ucloud.store.view import PREFIXES
from ucloud.system.clock import SystemClock
from ucloud.system.history import open_history

logger = logging.getLogger(__name__)

_EVERYTHING = "everything"
_LOOK_S = 0.5


def main(config: Config, stopping: threading.Event) -> int:
    """Runs until ``stopping``. Losing the election ends the passes; it then stands again."""
    clock = SystemClock()
    store = open_store(config.store)
    cache: Cache[Any] = Cache(store, PREFIXES, lambda item: decode(item.value), clock=clock)
    lost = threading.Event()
    identity = f"{socket.gethostname()}/{os.getpid()}"
    ttl_s = config.scheduler.election_ttl_s
    election = Election(store, "scheduler", identity, ttl_s=ttl_s, clock=clock, on_lost=lost.set)
    pools = PoolFencing(open_fence(config.host), wake=lambda: loop.wake(_EVERYTHING))
    history = open_history(config.log.history_socket, source="scheduler")
    decider = Decider(config, store, cache, clock, pools=pools, history=history)

    def handle(_: str) -> float:
        if not election.is_leader:
            return RESYNC_S
        try:
            return decider.run_pass(election.guard())
        except Unavailable as error:
            # Hosts may have died while the store was away: a backoff would be waiting time for their VMs.
            logger.warning("a pass waits for the store: %s", error.message)
            return _LOOK_S

    loop = Loop("scheduler", handle, clock=clock)
    cache.on_change(lambda _: loop.wake(_EVERYTHING))
    cache.start()
    loop.start()
    try:
        while not stopping.is_set():
            lost.clear()
            if election.campaign(stopping):
                logger.info("elected")
                loop.wake(_EVERYTHING)
                while election.is_leader and not stopping.is_set():
                    lost.wait(_LOOK_S)
    finally:
        loop.stop()
        election.resign()
        cache.stop()
        store.close()
    return 0
