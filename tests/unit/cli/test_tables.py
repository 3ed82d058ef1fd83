"""Golden tables and details."""

from __future__ import annotations

import datetime
import io

import pytest

from ucloud.cli.columns import COLUMNS, row_of, titles_of
from ucloud.cli.human import clean, format_age, format_bytes, format_mib, format_seconds
from ucloud.cli.progress import Progress
from ucloud.cli.tables import render_details, render_table

NOW = datetime.datetime(2026, 1, 31, 12, 5, 0, tzinfo=datetime.UTC)

TABLE = """\
NAME    STATUS   HOST
web1    running  host-local
café    failed   -
日本語  stopped  a?b
"""

DETAILS = """\
name       web1
protected  yes
spec
  cpus  2
  keys  a, b
  nics
    - id    x
      ipv6  fd00::5
    - id  y
status
  word  running
"""


def test_table() -> None:
    rows = [("web1", "running", "host-local"), ("café", "failed", ""), ("日本語", "stopped", "a\x1bb")]
    assert render_table(("NAME", "STATUS", "HOST"), rows) == TABLE


def test_table_with_colours() -> None:
    lines = render_table(("NAME", "STATUS"), [("a", "running"), ("b", "lost")], colours=True).splitlines()
    assert lines[1] == "a     \x1b[32mrunning\x1b[0m"
    assert lines[2] == "b     \x1b[31mlost\x1b[0m"


def test_details() -> None:
    spec = {"cpus": 2, "keys": ["a", "b"], "nics": [{"id": "x", "ipv6": "fd00::5", "ipv4": ""}, {"id": "y"}]}
    value = {"name": "web1", "protected": True, "labels": {}, "spec": spec, "status": {"word": "running"}}
    assert render_details(value) == DETAILS


@pytest.mark.parametrize("noun", COLUMNS)
def test_an_object_may_lack_any_field(noun: str) -> None:
    assert len(row_of(noun, {}, NOW)) == len(titles_of(noun))
    assert len(row_of(noun, {"spec": None, "status": {"claimed": None}}, NOW)) == len(titles_of(noun))


def test_human_words() -> None:
    assert format_age("2026-01-31T12:00:00.000Z", NOW) == "5m"
    assert format_age("", NOW) == ""
    assert format_age("soon", NOW) == "soon"
    assert [format_seconds(one) for one in (-1, 59, 61, 7300, 200_000)] == ["0s", "59s", "1m", "2h", "2d"]
    assert [format_mib(one) for one in (256, 1024, 1536, 1 << 20)] == ["256M", "1G", "1.5G", "1T"]
    assert [format_bytes(one) for one in (5, 2048, 3 << 20, 5 << 40)] == ["5 B", "2.0 KiB", "3.0 MiB", "5.0 TiB"]
    assert clean("a\x1b[31m\nb") == "a?[31m?b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_one_line() -> None:
    stream = Terminal()
    with Progress("vm web1", stream) as progress:
        progress.word("scheduling", "")
        progress.word("running", "")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\r" + "vm web1 running (0s)\x1b[K\n")


def test_transfers_elsewhere_are_a_line_each_tenth() -> None:
    stream = io.StringIO()
    with Progress("image tiny", stream) as progress:
        for done in range(0, 1001, 10):
            progress.transfer(done, 1000)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1].startswith("image tiny 1000 B of 1000 B, 100 %")
