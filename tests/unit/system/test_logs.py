"""Logs are JSON lines in a file that does not grow for ever."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ucloud.system.logs import request_id, setup_logs


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The root logger is given back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:], root.level = handlers, level


def test_a_line_is_json_with_the_request_at_hand(tmp_path: Path) -> None:
    setup_logs("agent", directory=tmp_path, level="info", limit_kib=10)
    token = request_id.set("req-1")
    logging.getLogger("a.b").info("did %d\nthings", 3)
    request_id.reset(token)
    (line,) = (tmp_path / "agent.log").read_text().splitlines()
    said = json.loads(line)
    assert (said["message"], said["logger"], said["request_id"]) == ("did 3\nthings", "a.b", "req-1")


def test_a_full_file_is_turned_over_and_one_old_one_kept(tmp_path: Path) -> None:
    setup_logs("agent", directory=tmp_path, level="info", limit_kib=1)
    for number in range(100):
        logging.getLogger("a").info("line %d %s", number, "x" * 50)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent.log", "agent.log.1"]
    assert all(path.stat().st_size < 1500 for path in tmp_path.iterdir())
    lines = [*(tmp_path / "agent.log.1").read_text().splitlines(), *(tmp_path / "agent.log").read_text().splitlines()]
    assert "line 99 " in json.loads(lines[-1])["message"]
