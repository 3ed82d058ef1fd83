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
from ucloud.system.logs import setup_logs


def make_store(settings: StoreSection) -> Store:
    if settings.endpoints:
        return open_store(settings)
    from ucloud.store.memory import MemoryStore  # not in a guard whose memory is measured

    return MemoryStore()


if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]))
    setup_logs("guard", directory=config.log.directory, level="info", limit_kib=1024)
    sys.exit(main(config, make_store=make_store))
