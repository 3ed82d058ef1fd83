"""Completion scripts come from the parser, so a new option is completed without more work."""

from __future__ import annotations

import argparse

import pytest

from tests.fake_api import FakeApi
from tests.unit.cli.conftest import Cli, make_parser
from ucloud.cli.completion import Command, list_commands


@pytest.fixture
def commands() -> dict[str, Command]:
    actions = make_parser()._actions
    subparsers = next(one for one in actions if isinstance(one, argparse._SubParsersAction))
    return {command.path: command for command in list_commands(subparsers.choices)}


def test_commands_are_found(commands: dict[str, Command]) -> None:
    assert {"vm", "vm create", "vm console", "image import", "event list", "completion"} <= set(commands)
    assert commands["vm ssh"].place == "@vm"
    assert commands["image import"].place == "@files"
    assert "create" in commands["vm"].words
    options = {option.flags[-1]: option for option in commands["vm create"].options}
    assert options["--image"].values == "@image"
    assert options["--restart"].values == "always on_failure never"
    assert options["--user-data"].values == "@files"
    assert options["--cpu"].values == ""
    assert not options["--wait"].takes_value


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_name_everything(cli: Cli, shell: str) -> None:
    done = cli("completion", shell)
    assert done.code == 0
    for word in ("create", "network", "user-data", "on_failure"):
        assert word in done.out


def test_names_are_asked_for_quietly(api: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    api.add("vm", "vm-1", "web2")
    api.add("vm", "vm-2", "web1")
    assert cli("completion", "names", "vm").out == "web1\nweb2\n"
    monkeypatch.setenv("UCLOUD_PROFILE", "/nonexistent")
    done = cli("completion", "names", "vm")
    assert (done.code, done.out, done.err) == (0, "", "")
