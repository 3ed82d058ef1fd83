"""The watcher of guests against a QEMU that hangs up at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ucloud.hypervisor.watcher import BREAKS_LIMIT, GuestWatcher
from ucloud.system.unix_socket import connect_unix, listen_unix


class HangingUp:
    """Accepts every connection and closes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ending = False
        self._listener = listen_unix(path)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection:
                if self._ending:
                    return

    def close(self) -> None:
        self._ending = True
        connect_unix(self.path, 1.0).close()
        self._thread.join()
        self._listener.close()


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[HangingUp]:
    made = HangingUp(tmp_path / "events.sock")
    yield made
    made.close()


def test_one_that_hangs_up_at_once_does_not_make_a_loop_spin(qemu: HangingUp) -> None:
    """Every wake-up is a pass, and every pass watches again."""
    wakes: list[bool] = []
    watcher = GuestWatcher(lambda vm_id: wakes.append(watcher.watch(vm_id, pid=7, path=qemu.path)))
    try:
        assert watcher.watch("vm-1", pid=7, path=qemu.path)
        deadline_s = time.monotonic() + 5
        while False not in wakes:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        assert wakes == [True] * (BREAKS_LIMIT - 1) + [False], "the caller is told to look again by itself"
        assert not watcher.watch("vm-1", pid=7, path=qemu.path)
        assert watcher.watch("vm-1", pid=8, path=qemu.path), "another QEMU has not hung up yet"
    finally:
        watcher.close()


def test_later_it_is_tried_again(qemu: HangingUp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ucloud.hypervisor.watcher.BREAK_PAUSE_S", 0.05)
    watcher = GuestWatcher(lambda vm_id: None)
    try:
        deadline_s = time.monotonic() + 5
        while watcher.watch("vm-1", pid=7, path=qemu.path):
            assert time.monotonic() < deadline_s
        while not watcher.watch("vm-1", pid=7, path=qemu.path):
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
    finally:
        watcher.close()
