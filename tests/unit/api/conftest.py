"""A service for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.service import PUBLIC_KEY, Service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.close()


@pytest.fixture
def ready(service: Service) -> Service:
    """With the image tiny, the network main (10.0.0.0/24) and the key mine."""
    service.seed_image()
    service.post("/v1/networks", {"name": "main", "ipv4_subnet": "10.0.0.0/24"})
    service.post("/v1/keys", {"name": "mine", "public_key": PUBLIC_KEY})
    return service


@pytest.fixture
def vm(ready: Service) -> Any:
    """The VM web1 on ``ready``."""
    return ready.post("/v1/vms", {"name": "web1", "image": "tiny", "keys": ["mine"]})
