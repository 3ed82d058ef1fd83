"""``ucloud scheduler``: campaign, and while elected run a pass at each wake-up and at least every few seconds."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Any

from ucloud.config import Config
from ucloud.control.decider import Decider
from ucloud.reconcile.loop import Loop
from ucloud.store.cache import Cache
from ucloud.store.codec import decode
from ucloud.store.connect import open_store
from ucloud.store.election import Election
from ucloud.store.view import PREFIXES
from ucloud.system.clock import SystemClock

logger = logging.getLogger(__name__)

RESYNC_S = 5.0
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
    decider = Decider(config, store, cache, clock)

    def handle(_: str) -> float:
        if election.is_leader:
            decider.run_pass(election.guard())
        return RESYNC_S

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
