"""The command line in this process, against the fake API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_api import FakeApi, running
from ucloud.cli import commands
from ucloud.cli.parser import Parser, add_shared_options


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]


def make_parser() -> Parser:
    parser = Parser(prog="ucloud")
    add_shared_options(parser, at_root=True)
    commands.add_commands(parser.add_subparsers(dest="command", metavar="COMMAND", required=True))
    return parser


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with running(tmp_path) as (api, _):
        yield api


@pytest.fixture
def cli(
    api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("UCLOUD_PROFILE", str(tmp_path / "client.toml"))

    def call(*words: str) -> Outcome:
        try:
            code = commands.run(make_parser().parse_args(list(words)))
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call
