"""What an image URL may not reach: the public addresses of the machine itself and of those beside it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from tests.conftest import require
from tests.integration.lab_host import greeter
from ucloud.api.imports import download_limits
from ucloud.config import Config, NetworkSection
from ucloud.errors import Error, Forbidden, Unavailable
from ucloud.storage.download import open_url
from ucloud.system.namespace import ensure_namespace, in_namespace, remove_namespace
from ucloud.system.netlink import open_links

CONFIG = Config(network=NetworkSection(ula_prefix="2600:2::/48"))


@pytest.fixture
def machine() -> Iterator[str]:
    """A namespace whose loopback has public addresses."""
    require("root")
    name = f"lab-import-{os.getpid()}"
    ensure_namespace(name)

    def configure() -> None:
        with open_links() as links:
            link = links.get("lo")
            links.set_up(link.index)
            for address in ("8.8.9.1/24", "2600:1::1/64"):
                links.add_address(link.index, address)

    try:
        in_namespace(name, configure)
        yield name
    finally:
        remove_namespace(name)


def refusal_of(machine: str, address: str) -> Error:
    def work() -> None:
        open_url(f"http://{address}:7002/image", limits=download_limits(CONFIG)).close()

    with pytest.raises(Error) as caught:
        in_namespace(machine, work)
    return caught.value


@pytest.mark.parametrize("address", ["8.8.9.1", "8.8.9.77", "[2600:1::1]", "[2600:1::77]", "[2600:2::5]"])
def test_own_public_addresses_are_refused(machine: str, address: str) -> None:
    with greeter(machine, socket.AF_INET, 7002), greeter(machine, socket.AF_INET6, 7002):
        error = refusal_of(machine, address)
    assert isinstance(error, Forbidden)
    assert "a network of this cloud" in error.message


def test_others_are_only_not_there(machine: str) -> None:
    for address in ("8.8.8.8", "[2600:3::1]"):
        assert isinstance(refusal_of(machine, address), Unavailable)
