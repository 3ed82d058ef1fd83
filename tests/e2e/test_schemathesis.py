"""A throw-away cloud keeps what its OpenAPI document promises: schemathesis with all checks, seeded."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.e2e.cloud import Cloud
from tests.e2e.conftest import PARTS

LIMIT_S = 180


@pytest.fixture
def empty_cloud() -> Iterator[Cloud]:
    """Without images no VM is ever made: what is tried here is the API, on real etcd, scheduler and agent."""
    for part in PARTS:
        require(part)
    made = Cloud(Path(tempfile.mkdtemp(prefix="ucs-", dir="/tmp")))
    try:
        made.up()
        yield made
    finally:
        made.down()
        shutil.rmtree(made.directory)


def test_all_checks_pass(empty_cloud: Cloud, tmp_path: Path) -> None:
    url = next(line for line in empty_cloud.profile.read_text().splitlines() if line.startswith("url")).split('"')[1]
    token = (empty_cloud.directory / "token").read_text().strip()
    argv = [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json"]
    argv += ["--header", f"Authorization: Bearer {token}", "--checks", "all", "--max-examples", "50"]
    argv += ["--seed", "1", "--no-color", "--generation-database", "none"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-12_000:] + done.stderr[-2000:]
