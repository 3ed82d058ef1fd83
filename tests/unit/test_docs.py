"""The documents tell the truth: names that ARCHITECTURE.md gives exist, links lead somewhere, settings are real."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from ucloud.config import Config

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ucloud"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_the_architecture_names_what_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    names = set(re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", text)) - {"__init__.py"}
    assert len(names) > 20
    assert [name for name in sorted(names) if not exists(name)] == []
    assert len(text.splitlines()) <= 150


def exists(name: str) -> bool:
    words = name.split(".")
    for length in range(len(words), 0, -1):
        path = SOURCE.joinpath(*words[:length])
        file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
        if file.exists():
            code = file.read_text()
            return all(re.search(rf"(def|class) {word}\b|^{word}\b", code, re.MULTILINE) for word in words[length:])
    return False


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_documented_settings_are_real_and_have_these_defaults() -> None:
    config = Config()
    text = (ROOT / "docs" / "operations.md").read_text()
    rows = re.findall(r"^\| `(\w+)\.(\w+)` \| ([^|]+) \|", text, re.MULTILINE)
    rows = [row for row in rows if hasattr(config, row[0])]
    assert len(rows) > 20
    for section, name, shown in rows:
        values = getattr(config, section)
        assert name in {field.name for field in fields(values)}, f"{section}.{name}"
        default = getattr(values, name)
        value = ", ".join(default) if isinstance(default, tuple) else str(default)
        assert shown.strip() == (value or "empty")
