"""What is no door, and certificates that are not there."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from ucloud.errors import MissingPrerequisite, Unavailable
from ucloud.system.door import DoorConnection, door_context, open_door


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "", "https://", "127.0.0.1:1"])
def test_what_is_no_door(url: str) -> None:
    with pytest.raises(Unavailable, match="no https URL"):
        open_door(url, ssl.create_default_context(), timeout_s=1)


def test_nobody_there() -> None:
    with pytest.raises(Unavailable, match=r"failed to reach the host at 127\.0\.0\.1:1: Connection refused"):
        DoorConnection("https://127.0.0.1:1/path", ssl.create_default_context(), timeout_s=1).request("GET", "/")


def test_missing_certificates_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite):
        door_context(tmp_path / "ca", tmp_path / "cert", tmp_path / "key")
