"""One real etcd for the whole session, and the pair of stores that the contract suites run on."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.contract.etcd_server import Cluster, etcd_cluster
from ucloud.store.api import Store
from ucloud.store.memory import MemoryStore


@pytest.fixture(scope="session")
def etcd() -> Iterator[Cluster]:
    require("etcd")
    with etcd_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["memory", "etcd"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store; on etcd it is shared, so a test keeps below its ``root``."""
    opened: Store = MemoryStore() if request.param == "memory" else request.getfixturevalue("etcd").store()
    yield opened
    opened.close()


@pytest.fixture
def root() -> str:
    """A prefix of the test's own."""
    return f"/test/{secrets.token_hex(4)}/"
