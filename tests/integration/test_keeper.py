"""``ucloud etcd``: the keeper and its member end together, however the keeper ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.guard_process import is_gone, wait_for
from ucloud.errors import Unavailable
from ucloud.local.layout import Layout, ensure_cloud
from ucloud.local.processes import running_pid
from ucloud.store.connect import open_store


class Keeper:
    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory)
        self.config = ensure_cloud(self.layout)
        command = [sys.executable, "-m", "ucloud", "etcd", "--config", str(self.layout.config_file)]
        self.process = subprocess.Popen(command)
        self.member = wait_for(self._child)

    def _child(self) -> int:
        assert self.process.poll() is None
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        names = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in text}
        return next((pid for pid, name in names.items() if name == "etcd"), 0)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    require("etcd")
    made = Keeper(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    wait_for(lambda: is_gone(made.member))


def test_a_killed_keeper_takes_its_member_along(keeper: Keeper) -> None:
    assert running_pid(keeper.layout.run, "etcd") == keeper.process.pid
    keeper.end(signal.SIGKILL)
    wait_for(lambda: is_gone(keeper.member), timeout_s=5)


def test_a_keeper_that_is_told_to_end_stops_its_member_in_order(keeper: Keeper) -> None:
    store = open_store(keeper.config.store)

    def answers() -> bool:
        with contextlib.suppress(Unavailable):
            return store.get("/x") is None
        return False

    wait_for(answers)
    store.close()
    assert keeper.end(signal.SIGTERM) == 0
    assert is_gone(keeper.member)


def test_a_keeper_ends_with_its_member_and_says_where_to_look(keeper: Keeper) -> None:
    os.kill(keeper.member, signal.SIGKILL)
    assert keeper.process.wait(20) == 1
    assert "etcd ended with -9" in (keeper.layout.logs / "etcd.log").read_text()
