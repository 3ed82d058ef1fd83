"""The settings file: round trip, defaults, and errors that name the key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.config import ApiSection, Config, NetworkSection, load_config, render_config
from ucloud.config.load import parse_config
from ucloud.errors import InvalidInput


def test_what_is_rendered_parses_to_the_same() -> None:
    config = Config(
        api=ApiSection(download_allowed_hosts=("a.example", 'quote".example')), network=NetworkSection(tag="abc")
    )
    assert parse_config(render_config(config), origin="test") == config


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_any_text_survives(text: str) -> None:
    config = Config(network=NetworkSection(domain=text))
    assert parse_config(render_config(config), origin="test") == config


def test_an_empty_file_is_all_defaults() -> None:
    assert parse_config("", origin="test") == Config()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[nonsense]\n", "nonsense"),
        ("[api]\nlissten = 'x'\n", "lissten"),
        ("[api]\nthreads = '4'\n", "api.threads"),
        ("[api]\nthreads = true\n", "api.threads"),
        ("[api]\ndownload_allowed_hosts = [1]\n", "api.download_allowed_hosts"),
        ("[network]\npublic_prefixes = ['2001:db8::1/48']\n", "2001:db8::1/48"),
        ("[network]\nula_prefix = 'fd00'\n", "network"),
        ("[log]\nlevel = 'loud'\n", "log.level"),
        ("api = 3\n", "api"),
        ("[api\n", "test"),
    ],
)
def test_a_mistake_is_named(text: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        parse_config(text, origin="test")


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_config(tmp_path / "none.toml")
    assert "ucloud up" in caught.value.hint


def test_only_what_differs_is_written() -> None:
    assert render_config(Config()).strip() == ""
    assert render_config(Config(network=NetworkSection(tag="abc"))) == '[network]\ntag = "abc"\n'


def test_there_are_not_too_many_settings() -> None:
    config = Config()
    assert sum(len(fields(getattr(config, section.name))) for section in fields(config)) <= 65
