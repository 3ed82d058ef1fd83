"""What people type, as values."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import pytest

from ucloud.cli import values
from ucloud.cli.human import format_mib


@pytest.mark.parametrize(
    ("text", "mib"),
    [("256M", 256), ("256m", 256), ("256MiB", 256), ("1G", 1024), ("1GiB", 1024), ("1.5G", 1536), ("2T", 2 << 20)],
)
def test_sizes(text: str, mib: int) -> None:
    assert values.parse_mib(text) == mib
    assert values.parse_mib(format_mib(mib)) == mib


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *[(values.parse_mib, text) for text in ("", "256", "1GB", "1mb", "-1G", "0M", "1.0001M", "1e3M", "1 G B", "x")],
        *[(values.parse_gib, text) for text in ("512M", "1.5G")],
        *[(values.parse_count, text) for text in ("0", "-1", "1.5", "٣", "")],
        *[(values.parse_seconds, text) for text in ("", "5 m", "-5s", "5d")],
        *[(values.parse_label, text) for text in ("role", "=x")],
        *[(values.parse_network, text) for text in ("=10.0.0.1", "main=10.0.0", "main=10.0.0.1,10.0.0.2")],
        (values.parse_switch, "maybe"),
    ],
)
def test_refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse(text)


def test_durations() -> None:
    assert [values.parse_seconds(text) for text in ("90", "90s", "1.5m", "2h")] == [90, 90, 90, 7200]


def test_labels_and_networks() -> None:
    assert values.parse_label("a=b=c") == ("a", "b=c")
    assert values.parse_label("a=") == ("a", "")
    assert values.parse_network("main") == {"network": "main"}
    assert values.parse_network("main=FD00:0::5,10.0.0.5") == {"network": "main", "ipv6": "fd00::5", "ipv4": "10.0.0.5"}


def test_gib() -> None:
    assert values.parse_gib("2G") == 2
    assert values.parse_gib("2048M") == 2
