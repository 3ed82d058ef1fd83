"""The API keeps what its OpenAPI document promises: schemathesis with all checks, seeded, against the real process."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.conftest import require
from tests.integration.api_server import TOKEN, Api, running
from ucloud.system.run import run


def make_usable(api: Api) -> None:
    """What the document's example of a VM names."""
    assert api.ask("POST", "/v1/networks", {"name": "main", "ipv4_subnet": "10.0.0.0/16"})[0] == 201
    disk = bytes(510) + b"\x55\xaa" + bytes(1024 * 1024 - 512)
    assert api.ask("POST", "/v1/images/upload?name=tiny", disk)[0] == 201


def test_all_checks_pass(tmp_path: Path) -> None:
    require("qemu")
    with running(tmp_path, Path(__file__).with_name("memory_api.py")) as api:
        make_usable(api)
        program = Path(sys.executable).with_name("schemathesis")
        argv = [program, "run", f"http://127.0.0.1:{api.port}/v1/openapi.json"]
        argv += ["--header", f"Authorization: Bearer {TOKEN}", "--checks", "all", "--max-examples", "15"]
        argv += ["--seed", "1", "--no-color", "--generation-database", "none"]
        done = run(argv, timeout_s=170, check=False, cwd=tmp_path)
        assert done.exit_code == 0, done.stdout[-12_000:] + done.stderr[-2000:]
        assert api.stop() == 0, api.log[-4000:]
