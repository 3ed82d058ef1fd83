"""A process is found by the lock it holds, and there is only one of each name."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ucloud.errors import Conflict, DeadlineExceeded
from ucloud.local import processes
from ucloud.local.processes import is_running, lock_file, only_one, running_pid, stop_process
from ucloud.system.clock import SystemClock

HOLD = (
    "import sys; from pathlib import Path; from ucloud.local.processes import only_one;"
    "from ucloud.system.clock import SystemClock\n"
    "with only_one(Path(sys.argv[1]), 'api', SystemClock()):\n print('held', flush=True); sys.stdin.read()"
)


def hold(directory: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_nobody_runs_at_first(tmp_path: Path) -> None:
    assert running_pid(tmp_path, "api") == 0
    assert not stop_process(tmp_path, "api", SystemClock())


def test_a_running_process_is_found_and_stopped(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        assert running_pid(tmp_path, "api") == process.pid
        assert stop_process(tmp_path, "api", SystemClock(), timeout_s=10)
        assert running_pid(tmp_path, "api") == 0


def test_the_second_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TAKE_TIMEOUT_S", 0.1)
    with hold(tmp_path) as process:
        with pytest.raises(Conflict, match="already runs"), only_one(tmp_path, "api", SystemClock()):
            pass
        process.kill()


def test_a_dead_process_leaves_no_trace(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        process.kill()
        process.wait()
        assert running_pid(tmp_path, "api") == 0
    with only_one(tmp_path, "api", SystemClock()):
        assert running_pid(tmp_path, "api") == os.getpid()


@pytest.mark.parametrize("left", ["", "1 1\n", f"{os.getpid()}\n", "x y\n"], ids=["none", "dead", "old", "odd"])
def test_one_that_holds_its_lock_runs_before_its_pid_is_written(tmp_path: Path, left: str) -> None:
    """Whatever an earlier one left in the file: a second is not started, and no stranger gets a signal."""
    with lock_file(tmp_path, "api").open("w") as file:
        file.write(left)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_running(tmp_path, "api")
        assert running_pid(tmp_path, "api") == 0
        with pytest.raises(DeadlineExceeded):
            stop_process(tmp_path, "api", SystemClock(), timeout_s=0.1)
    assert not is_running(tmp_path, "api")
