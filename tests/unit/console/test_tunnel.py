"""The pure parts of the tunnel."""

from __future__ import annotations

import pytest

from ucloud.console.tunnel import parse_head, render_upgrade
from ucloud.errors import Unavailable


def test_the_request() -> None:
    assert render_upgrade("/vms/vm-1/console", "[::1]:8702") == (
        b"GET /vms/vm-1/console HTTP/1.1\r\nHost: [::1]:8702\r\nConnection: Upgrade\r\nUpgrade: ucloud-console\r\n\r\n"
    )


def test_the_head_of_an_answer() -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: ucloud-console\r\nX: a:b"
    assert parse_head(head) == (101, {"upgrade": "ucloud-console", "x": "a:b"})


@pytest.mark.parametrize("head", [b"", b"SSH-2.0-x", b"HTTP/1.1", b"HTTP/1.1 abc"])
def test_what_is_no_answer(head: bytes) -> None:
    with pytest.raises(Unavailable):
        parse_head(head)
