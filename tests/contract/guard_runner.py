"""A guard as its own process, for tests: ``python -m tests.contract.guard_runner CONFIG``.

Its life sign goes to a store in its memory, unless the configuration names an etcd.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ucloud.config.load import load_config
from ucloud.config.sections import StoreSection
from ucloud.guard.process import main
from ucloud.store.api import Store
from ucloud.store.connect import open_store
from ucloud.store.memory import MemoryStore


def make_store(settings: StoreSection) -> Store:
    return open_store(settings) if settings.endpoints else MemoryStore()


if __name__ == "__main__":
    sys.exit(main(load_config(Path(sys.argv[1])), make_store=make_store))
