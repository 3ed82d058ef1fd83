"""The API keeps what its OpenAPI document promises: schemathesis with all checks, seeded, against the real process."""

from __future__ import annotations

import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from ucloud.system.run import run, spawn

TOKEN = "schemathesis"
HERE = Path(__file__).parent


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "token").write_text(TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listening, (tmp_path / "log").open("wb") as log:
        listening.set_inheritable(True)
        argv = [sys.executable, HERE / "memory_api.py", tmp_path, str(listening.fileno())]
        server = spawn(argv, log=log, pass_fds=[listening.fileno()])
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            wait_for_answer(f"{address}/v1/health")
            yield address
        finally:
            server.terminate()
            assert server.wait(15) == 0, (tmp_path / "log").read_text()[-4000:]


def make_usable(url: str) -> None:
    """What the document's example of a VM names."""
    post(f"{url}/v1/networks", b'{"name": "main", "ipv4_subnet": "10.0.0.0/16"}', "application/json")
    post(f"{url}/v1/images/upload?name=tiny", bytes(510) + b"\x55\xaa" + bytes(1024 * 1024 - 512), "application/octet-stream")


def post(url: str, body: bytes, content_type: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": content_type}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
        assert answer.status == 201


def wait_for_answer(url: str, timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > until:
                raise


def test_all_checks_pass(url: str, tmp_path: Path) -> None:
    make_usable(url)
    program = Path(sys.executable).with_name("schemathesis")
    argv = [program, "run", f"{url}/v1/openapi.json", "--header", f"Authorization: Bearer {TOKEN}"]
    argv += ["--checks", "all", "--max-examples", "50", "--seed", "1", "--no-color"]
    argv += ["--generation-database", "none"]
    done = run(argv, timeout_s=150, check=False, cwd=tmp_path)
    assert done.exit_code == 0, done.stdout[-12_000:] + done.stderr[-2000:]
