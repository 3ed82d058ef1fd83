"""The real API process under gunicorn over a store in memory, for tests: ``memory_api.py DIRECTORY FD``.

With it run the scheduler's cleaner, as nothing else finishes deletes, and no host. ``DIRECTORY`` has the token.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from flask import Flask

from ucloud.api.app import create_app
from ucloud.api.site import SCHEDULER_ELECTION, make_cache, view_of
from ucloud.compose.cleaner import apply_cleaning, plan_cleaning
from ucloud.config import ApiSection, Config, HostSection
from ucloud.errors import NotFound
from ucloud.serving.server import serve
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.store import keys
from ucloud.store.api import Put, Txn, created_at
from ucloud.store.memory import MemoryStore
from ucloud.system.clock import SystemClock


class NoDoor:
    def serial_log(self, url: str, vm_id: str, tail_bytes: int) -> bytes:
        raise NotFound(f"failed to read the log of {vm_id}: no host at {url} ({tail_bytes} bytes)")


def make_config(directory: Path) -> Config:
    return Config(
        api=ApiSection(token_file=directory / "token", image_limit_gib=1, download_allowed_hosts=("127.0.0.1",)),
        host=HostSection(pool_directory=directory / "pool"),
    )


def make_app(config: Config) -> Flask:
    clock = SystemClock()
    store = MemoryStore(clock)
    cache = make_cache(store, clock)
    cache.start()
    threading.Thread(target=_clean, args=(store, clock), daemon=True).start()
    pool = DirectoryPool(config.host.pool_directory, min_reserve_bytes=0)
    return create_app(config, store, cache, pool=pool, clock=clock, door=NoDoor())


def _clean(store: MemoryStore, clock: SystemClock) -> None:
    leader = keys.election(SCHEDULER_ELECTION) + "test"
    elected = store.commit(Txn((), (Put(leader, b""),))).revision
    cache = make_cache(store, clock)
    cache.start()
    snapshot = cache.wait_for(elected, 5.0)
    while True:
        view = view_of(snapshot)
        apply_cleaning(store, plan_cleaning(view), leader=created_at(leader, elected), clock=clock)
        snapshot = cache.next_snapshot(snapshot.revision, 0.2)


if __name__ == "__main__":
    config = make_config(Path(sys.argv[1]))
    sys.exit(serve(lambda: make_app(config), bind=f"fd://{sys.argv[2]}", threads=config.api.threads))
