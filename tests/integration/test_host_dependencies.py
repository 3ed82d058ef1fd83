"""A host needs only the host set: a virtual environment with nothing else starts agent, guard and metadata."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import require
from ucloud.local.layout import Layout, ensure_cloud

ROOT = Path(__file__).parents[2]
IMPORTS = "import ucloud.agent.process, ucloud.guard.process, ucloud.metadata.process, ucloud.network.room"
CONTROL = ("flask", "pydantic", "gunicorn", "websockets", "cryptography")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("root")
    environment = tmp_path_factory.mktemp("host") / "venv"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    pip = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[host]"]
    subprocess.run(pip, check=True, timeout=300)
    return environment / "bin" / "python"


def test_the_processes_of_a_host_import(python: Path) -> None:
    subprocess.run([python, "-c", IMPORTS], check=True, timeout=60)


@pytest.mark.parametrize("name", CONTROL)
def test_nothing_of_the_control_set_is_there(python: Path, name: str) -> None:
    assert subprocess.run([python, "-c", f"import {name}"], capture_output=True, check=False, timeout=60).returncode


def test_the_agent_starts_waits_for_etcd_and_ends(python: Path, tmp_path: Path) -> None:
    require("qemu")
    layout = Layout(tmp_path / "cloud")
    config = ensure_cloud(layout)
    agent = subprocess.Popen([python, "-m", "ucloud", "agent", "--config", layout.config_file], stderr=subprocess.PIPE)
    try:
        port = int(config.host.door_listen.rpartition(":")[2])
        deadline = time.monotonic() + 30
        while not _answers(port):
            assert agent.poll() is None, agent.communicate()[1].decode()
            assert time.monotonic() < deadline, "the agent's door does not answer"
            time.sleep(0.05)
    finally:
        agent.terminate()
        errors = agent.communicate(timeout=30)[1].decode()
    assert (agent.returncode, errors) == (0, "")


def _answers(port: int) -> bool:
    with socket.socket() as knock:
        return knock.connect_ex(("127.0.0.1", port)) == 0
