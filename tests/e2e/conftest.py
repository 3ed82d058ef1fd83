"""One cloud for all end-to-end tests, with the tiny image, a network and a key; at the end nothing may be left."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.e2e.cloud import Cloud

PARTS = ("root", "etcd", "qemu", "nft", "ip", "dnsmasq", "ssh", "image-tools")


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    for part in PARTS:
        require(part)
    made = Cloud(Path(tempfile.mkdtemp(prefix="uce-", dir="/tmp")))
    try:
        made.up()
        made.run("image", "build", "tiny", "--file", made.directory / "tiny.qcow2", "--directory", made.directory)
        made.api("image", "import", made.directory / "tiny.qcow2", "--name", "tiny")
        made.api("network", "create", "main", "--ipv4-subnet", "10.98.0.0/24")
        made.make_key()
        made.api("key", "create", "mine", "--public-key", made.key.with_suffix(".pub"))
        yield made
    finally:
        made.down()
        left = (made.devices(), made.namespaces(), made.tables(), made.pids_with(str(made.directory)))
        shutil.rmtree(made.directory)
    assert left == ([], [], [], [])
