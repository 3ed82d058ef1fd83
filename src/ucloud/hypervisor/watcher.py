"""Tells at once when something happened to a guest: a power-off, a panic, a full disk, the end of its QEMU.

One thread listens on the second QMP socket of every watched VM and calls ``wake`` with the VM's id. Events only wake
(law 3): what happened is found out by the next pass. A connection that cannot be made or that breaks is a wake-up
too, and ``watch`` is called again by that pass; one that breaks again and again is left alone for a while.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ucloud.errors import Error
from ucloud.hypervisor.qmp import Event, Greeting, Lines, parse_message
from ucloud.system.unix_socket import connect_unix

_log = logging.getLogger(__name__)

BREAKS_LIMIT = 3
BREAK_PAUSE_S = 1.0
_CONNECT_TIMEOUT_S = 1.0
_CAPABILITIES = b'{"execute": "qmp_capabilities"}\n'
_WAKING = frozenset(
    {
        "SHUTDOWN",
        "STOP",
        "RESUME",
        "RESET",
        "POWERDOWN",
        "GUEST_PANICKED",
        "GUEST_CRASHLOADED",
        "BLOCK_IO_ERROR",
        "MIGRATION",
    }
)


@dataclass(slots=True)
class _Watched:
    vm_id: str
    pid: int
    socket: socket.socket
    lines: Lines = field(default_factory=Lines)


@dataclass(slots=True)
class _Breaks:
    """How often the connection to one QEMU broke without a longer pause in between, and when last."""

    pid: int
    count: int = 0
    last_s: float = 0.0

    def add(self, now_s: float) -> None:
        self.count = self.count + 1 if now_s < self.last_s + BREAK_PAUSE_S else 1
        self.last_s = now_s


class GuestWatcher:
    """``watch`` and ``forget`` may be called from any thread; ``wake`` is called from the watcher's own."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._watched: dict[str, _Watched] = {}
        self._breaks: dict[str, _Breaks] = {}
        self._wakeup_read, self._wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="guest-watcher", daemon=True)
        self._thread.start()

    def watch(self, vm_id: str, *, pid: int, path: Path) -> bool:
        """Watch process ``pid`` of the VM by its events socket; nothing happens if it is watched already.

        False if the socket does not answer: then nobody will tell, and the caller looks again soon.
        """
        with self._lock:
            known = self._watched.get(vm_id)
            if known is not None and known.pid == pid:
                return True
            if self._must_rest(vm_id, pid):
                return False
        with contextlib.suppress(OSError):  # it ends or is not there yet: the next pass sees it
            connection = connect_unix(path, _CONNECT_TIMEOUT_S)
            connection.setblocking(False)
            self._replace(vm_id, _Watched(vm_id, pid, connection))
            return True
        return False

    def forget(self, vm_id: str) -> None:
        with self._lock:
            self._breaks.pop(vm_id, None)
        self._replace(vm_id, None)

    def close(self) -> None:
        self._stopping = True
        self._nudge()
        self._thread.join()
        for watched in self._watched.values():
            watched.socket.close()
        os.close(self._wakeup_read)
        os.close(self._wakeup_write)

    def _must_rest(self, vm_id: str, pid: int) -> bool:
        """Whether this QEMU hung up so often just now that another try would only wake its VM again."""
        breaks = self._breaks.get(vm_id)
        if breaks is None or breaks.pid != pid or breaks.count < BREAKS_LIMIT:
            return False
        return time.monotonic() < breaks.last_s + BREAK_PAUSE_S

    def _note_break(self, watched: _Watched) -> None:
        breaks = self._breaks.get(watched.vm_id)
        if breaks is None or breaks.pid != watched.pid:
            breaks = self._breaks[watched.vm_id] = _Breaks(watched.pid)
        breaks.add(time.monotonic())

    def _replace(self, vm_id: str, watched: _Watched | None) -> None:
        with self._lock:
            before = self._watched.pop(vm_id, None)
            if watched is not None:
                self._watched[vm_id] = watched
            if before is not None:
                before.socket.close()
        self._nudge()

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wakeup_write, b"!")

    def _run(self) -> None:
        while not self._stopping:
            poll = select.poll()
            poll.register(self._wakeup_read, select.POLLIN)
            with self._lock:
                numbers = {one.socket.fileno(): one for one in self._watched.values()}
                for number in numbers:
                    poll.register(number, select.POLLIN)
            for number, _ in poll.poll():
                if number == self._wakeup_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wakeup_read, 4096)
                elif number in numbers:
                    self._read(numbers[number])

    def _read(self, watched: _Watched) -> None:
        with self._lock:
            if self._watched.get(watched.vm_id) is not watched:
                return
            try:
                woken, over = _take(watched)
            except (OSError, Error) as error:
                _log.info("vm=%s events ended: %s", watched.vm_id, error)
                woken = over = True
            if over:
                del self._watched[watched.vm_id]
                watched.socket.close()
                self._note_break(watched)
        if woken:
            self._wake(watched.vm_id)


def _take(watched: _Watched) -> tuple[bool, bool]:
    """Read what is there: whether it is worth a wake-up, and whether the connection is over."""
    try:
        data = watched.socket.recv(65536)
    except BlockingIOError:
        return False, False
    if not data:
        return True, True
    woken = False
    for message in map(parse_message, watched.lines.feed(data)):
        if isinstance(message, Greeting):
            watched.socket.sendall(_CAPABILITIES)
        woken = woken or (isinstance(message, Event) and message.name in _WAKING)
    return woken, False
