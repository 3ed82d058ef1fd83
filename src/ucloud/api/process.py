"""The API process: the application on etcd. Store, cache and application are made in the server's worker."""

from __future__ import annotations

from flask import Flask

from ucloud.api.app import create_app
from ucloud.api.door import AgentDoor
from ucloud.api.site import make_cache
from ucloud.config import Config
from ucloud.serving.server import serve
from ucloud.serving.token import read_token
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.store.connect import open_store
from ucloud.system.clock import SystemClock


def make_app(config: Config) -> Flask:
    """The application on etcd, its cache running."""
    clock = SystemClock()
    store = open_store(config.store)
    cache = make_cache(store, clock)
    cache.start()
    pool = DirectoryPool(config.host.pool_directory, reserve_percent=config.host.pool_reserve_percent)
    return create_app(config, store, cache, pool=pool, clock=clock, door=AgentDoor(config.store))


def main(config: Config) -> int:
    """The API on etcd. Returns its exit code; what is missing on this machine is raised before any fork."""
    read_token(config.api.token_file)
    AgentDoor(config.store)
    return serve(lambda: make_app(config), bind=config.api.listen, threads=config.api.threads)
