"""The recorder of a lab: one process that writes all facts with one clock into ``history.jsonl``.

It hears what the processes tell (``system.history``), sees the ends of QEMUs with its own eyes (a pidfd for each
``vm_born``) and watches the store. Lines are written whole and at once; nothing is kept in memory but the pidfds and
the revisions of the watched keys. Must hold: a gap is never silent: a recorder that begins where another ended says so
with a ``dropped`` fact, and one that was told to end writes ``history_end``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
from pathlib import Path
from typing import Any

from ucloud.config import StoreSection
from ucloud.lab.store_watch import StoreWatch
from ucloud.system.clock import Clock, SystemClock

_SOURCE = "recorder"
_DATAGRAM_BYTES = 1 << 16
_BUFFER_BYTES = 8 << 20
_LOOK_EVERY_MS = 200


class HistoryFile:
    """Thread-safe: lines of several threads do not mix."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    @property
    def is_new(self) -> bool:
        return os.fstat(self._descriptor).st_size == 0

    def note(self, kind: str, **facts: Any) -> None:
        """A fact of the recorder's own, now."""
        self.write({"at_s": self._clock.monotonic_s(), "source": _SOURCE, "kind": kind, **facts})

    def write(self, line: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


class Recorder:
    """Used by one thread."""

    def __init__(self, path: Path, file: HistoryFile) -> None:
        self._file = file
        self._path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with contextlib.suppress(PermissionError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._socket.bind(str(path))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._pids: dict[int, dict[str, Any]] = {}

    def run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            for descriptor, _ in self._poll.poll(_LOOK_EVERY_MS):
                if descriptor == self._socket.fileno():
                    self._hear()
                else:
                    self._end(descriptor)
        self._hear()

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        self._socket.close()
        for descriptor in self._pids:
            os.close(descriptor)

    def _hear(self) -> None:
        """All that waits: ends that come meanwhile are seen after it, never before their births."""
        while True:
            try:
                data = self._socket.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                return
            try:
                line = json.loads(data)
            except ValueError:
                self._file.note("unreadable", dropped=1)
                continue
            self._file.write(line)
            if line.get("kind") == "vm_born":
                self._follow(line)

    def _follow(self, born: dict[str, Any]) -> None:
        facts: dict[str, Any] = {name: born[name] for name in ("pid", "vm", "host") if name in born}
        try:
            descriptor = os.pidfd_open(int(born["pid"]))
        except ProcessLookupError:
            self._file.note("pid_exit", **facts)
            return
        self._pids[descriptor] = facts
        self._poll.register(descriptor, select.POLLIN)

    def _end(self, descriptor: int) -> None:
        self._file.note("pid_exit", **self._pids.pop(descriptor))
        self._poll.unregister(descriptor)
        os.close(descriptor)


def record(path: Path, socket_path: Path, store: StoreSection, stopping: threading.Event) -> None:
    """Until ``stopping``."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # what is stamped late looks longer than it was
    file = HistoryFile(path, SystemClock())
    if file.is_new:
        file.note("history_begin")
    else:
        file.note("recorder_again", dropped=1)
    recorder = Recorder(socket_path, file)
    watch = StoreWatch(store, file.note)
    watch.start()
    try:
        recorder.run(stopping)
    finally:
        watch.stop()
        recorder.close()
        file.note("history_end")
        file.close()
