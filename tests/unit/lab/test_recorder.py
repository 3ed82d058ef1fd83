"""The recorder: whole lines, ends of processes, gaps that are told."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from ucloud.lab.recorder import HistoryFile, Recorder
from ucloud.lab.store_watch import facts_of
from ucloud.lab.telling import read_history
from ucloud.model.guard import LifeSign, RunLock
from ucloud.model.vm import Failover
from ucloud.store.codec import encode
from ucloud.system.clock import SystemClock
from ucloud.system.history import SocketHistory
from ucloud.system.run import spawn


def test_what_is_told_is_written_and_an_end_is_seen(tmp_path: Path) -> None:
    path, door = tmp_path / "history.jsonl", tmp_path / "history.sock"
    file = HistoryFile(path, SystemClock())
    recorder = Recorder(door, file)
    stopping = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stopping,))
    told = SocketHistory(str(door), source="guard/h1")
    thread.start()
    try:
        child = spawn((sys.executable, "-c", "import signal; signal.pause()"))
        told.tell("vm_born", vm="vm-1", host="h1", pid=child.pid)
        told.tell("fence", host="h1", reason="no evidence")
        _wait(path, "fence")
        child.kill()
        child.wait()
        _wait(path, "pid_exit")
    finally:
        told.close()
        stopping.set()
        thread.join()
        recorder.close()
        file.close()
    lines = list(read_history(path))
    assert [line["kind"] for line in lines] == ["vm_born", "fence", "pid_exit"]
    assert lines[2] | {"at_s": 0} == {
        "at_s": 0,
        "source": "recorder",
        "kind": "pid_exit",
        "pid": child.pid,
        "vm": "vm-1",
        "host": "h1",
    }
    assert lines[0]["at_s"] < lines[2]["at_s"]
    assert not door.exists()


def _wait(path: Path, kind: str) -> None:
    deadline = threading.Event()
    for _ in range(500):
        if any(line["kind"] == kind for line in read_history(path)):
            return
        deadline.wait(0.01)
    raise AssertionError(f"no {kind}")


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps({"kind": "one"}) + '\n{"kind": "tw')
    assert [line["kind"] for line in read_history(path)] == ["one"]
    assert list(read_history(tmp_path / "none")) == []


def test_what_the_checker_reads_of_a_stored_value() -> None:
    assert facts_of(encode(LifeSign("h1", "abc", "now", fence_s=3.0))) == {
        "host": "h1",
        "incarnation": "abc",
        "fence_s": 3.0,
    }
    lock = RunLock("vm-1", "h1", "abc", 2, Failover.RESTART, "lab")
    assert facts_of(encode(lock)) == {
        "vm": "vm-1",
        "host": "h1",
        "incarnation": "abc",
        "generation": 2,
        "failover": "restart",
    }
    assert "unreadable" in facts_of(b"nonsense")
