"""Profiles: which file is taken, and what a broken one says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ucloud.client import Profile, find_profile, load_profile, render_profile
from ucloud.client.profile import parse_profile
from ucloud.errors import InvalidInput, MissingPrerequisite


def test_a_profile_survives_being_written(tmp_path: Path) -> None:
    profile = Profile("http://127.0.0.1:8700/v1", tmp_path / 'a "token"', "ws://127.0.0.1:8701")
    (tmp_path / "client.toml").write_text(render_profile(profile))
    assert load_profile(tmp_path / "client.toml") == profile


def test_a_relative_token_file_is_beside_the_profile(tmp_path: Path) -> None:
    text = 'url = "http://x/v1/"\ntoken_file = "token"\n'
    assert parse_profile(text, directory=tmp_path, origin="p") == Profile("http://x/v1", tmp_path / "token")


@pytest.mark.parametrize(
    "text",
    [
        "url = ",
        'url = "http://x"',
        'url = "ftp://x"\ntoken_file = "t"',
        'url = "http://x"\ntoken_file = "t"\nmore = 1',
        'url = 1\ntoken_file = "t"',
    ],
)
def test_broken_profiles(text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="failed to parse p:"):
        parse_profile(text, directory=tmp_path, origin="p")


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, host: str) -> Path:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'url = "http://{host}"\ntoken_file = "t"\n')
        return path

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("UCLOUD_PROFILE", raising=False)
    write(tmp_path / ".ucloud/client.toml", "home")
    assert find_profile().url == "http://home"
    monkeypatch.setenv("UCLOUD_PROFILE", str(write(tmp_path / "env.toml", "env")))
    assert find_profile().url == "http://env"
    assert find_profile(write(tmp_path / "named.toml", "named")).url == "http://named"


def test_a_profile_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="No such file"):
        find_profile(tmp_path / "none.toml")


def test_a_token_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="failed to read the token"):
        Profile("http://x", tmp_path / "none").read_token()
