"""Every folder beside this file is a story: what happens to a simulated cloud, and, line by line, what follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenario.simulation.story import read_story, tell_story

FOLDERS = sorted(path.parent for path in Path(__file__).parent.glob("*/cluster.toml"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_scenario(folder: Path, request: pytest.FixtureRequest) -> None:
    told = tell_story(read_story(folder))
    assert not told.violations, "\n".join(told.lines)
    assert not [line for line in told.lines if "NOT AS EXPECTED" in line], "\n".join(told.lines)
    expected = folder / "expect.log"
    text = "\n".join(told.lines) + "\n"
    if request.config.getoption("--write-expected", default=False):
        expected.write_text(text)
    assert text == expected.read_text(), f"see {expected}; --write-expected writes it anew"


def test_there_are_enough_stories() -> None:
    assert len(FOLDERS) >= 40
