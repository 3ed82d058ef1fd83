"""The fake API for the client's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_api import FakeApi, running
from ucloud.client import Client, Profile


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[FakeApi, Profile]]:
    with running(tmp_path) as pair:
        yield pair


@pytest.fixture
def api(served: tuple[FakeApi, Profile]) -> FakeApi:
    return served[0]


@pytest.fixture
def client(served: tuple[FakeApi, Profile]) -> Iterator[Client]:
    with Client(served[1], timeout_s=5, patience_s=2) as client:
        yield client
