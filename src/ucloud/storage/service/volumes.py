"""The files of the volumes, and the one place where their bytes change: only for the holder, one write at a time.

Owns the memory of who holds (``service.json``) and who is fenced (``fenced.json`` beside it), of which each is written
when it changed, before anything is answered; of probes neither is kept there. Tells the history who wrote when. Must
hold: what ``acquire`` or ``fence`` has taken from a client is written by it no more when they return.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ucloud.errors import NotFound
from ucloud.storage.service.access import Access, Client, Holder, is_probe
from ucloud.storage.service.faults import Faults, Hang, LateWrites
from ucloud.storage.service.nbd import Errno
from ucloud.system.clock import Clock
from ucloud.system.files import read_json, write_json
from ucloud.system.history import History

RAW_DISK = "root.raw"
FENCED_FILE = "fenced.json"
TELL_EVERY_S = 1.0
_HOSTS_KEPT_S = 3600.0
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """A request that is answered with an error number; the connection goes on."""

    def __init__(self, number: Errno) -> None:
        super().__init__(number.name)
        self.number = number


@dataclass(slots=True)
class Span:
    """What one client wrote without another one in between."""

    client: Client
    first_s: float
    last_s: float
    writes: int = 1


@dataclass(slots=True)
class OpenVolume:
    """A file that is open for all its connections. Its bytes change under ``lock``."""

    id: str
    descriptor: int
    connections: int = 0
    span: Span | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class Volumes:
    def __init__(self, directory: Path, state_file: Path, *, history: History, clock: Clock) -> None:
        self._directory = directory
        self._state_file = state_file
        self._history = history
        self._clock = clock
        self._lock = threading.Lock()
        self._access = Access()
        self._open: dict[str, OpenVolume] = {}
        self._ends: dict[Client, set[Callable[[], None]]] = {}
        self._hosts: dict[str, tuple[float, bool]] = {}
        self._saved_holders: dict[str, list[str]] | None = None
        self._saved_fenced = -1
        self.hang = Hang(clock)
        self.late = LateWrites(clock)
        self.late_write_s = 0.0
        self._restore()

    # Who may write.

    def acquire(self, volume: str, client: Client, *, moved_from: str = "") -> None:
        """Also of a volume that is still to be made. Raises Conflict or Forbidden."""
        with self._lock:
            before = self._access.holders.get(volume)
            self._access.acquire(volume, client, now_s=self._clock.monotonic_s(), moved_from=moved_from)
            self._save()
        if before is None or before.client != client:
            self._finish_writes(volume)
            self._tell("pool_acquired", client, volume=volume)

    def release(self, volume: str, client: Client) -> None:
        with self._lock:
            held = self._access.release(volume, client)
            self._save()
        if held:
            self._finish_writes(volume)
            self._tell("pool_released", client, volume=volume)

    def fence(self, client: Client) -> None:
        """Returns when nothing of the client can be written any more. May be repeated."""
        with self._lock:
            known = self._access.is_fenced(client)
            self._access.fence(client, now_s=self._clock.monotonic_s())
            self._save()
            ends = tuple(self._ends.get(client, ()))
        self.late.drop(client)
        for volume in tuple(self._open):
            self._finish_writes(volume)
        for end in ends:
            end()
        if not known:
            self._tell("pool_fenced", client)

    # What hosts say of themselves.

    def hello(self, host: str, *, proved: bool) -> Mapping[str, float]:
        """The age in seconds of the last hello of each host that has proved that it can fence."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            self._hosts = {name: said for name, said in self._hosts.items() if now_s - said[0] < _HOSTS_KEPT_S}
            self._hosts[host] = (now_s, proved)
            return {name: now_s - at_s for name, (at_s, has_proved) in self._hosts.items() if has_proved}

    def set_faults(self, faults: Faults) -> None:
        with self._lock:
            self._access.linger_s = faults.linger_s
        self.late_write_s = faults.late_write_s
        self.hang.begin(faults.hang_s)

    def status(self) -> dict[str, Any]:
        with self._lock:
            return {
                "holders": {
                    volume: {
                        "host": holder.client.host,
                        "incarnation": holder.client.incarnation,
                        "connections": holder.connections,
                    }
                    for volume, holder in sorted(self._access.holders.items())
                },
                "fenced": [[client.host, client.incarnation] for client in sorted(self._access.fenced)],
                "linger_s": self._access.linger_s,
                "late_write_s": self.late_write_s,
            }

    # Reading and writing.

    def open(self, volume: str, client: Client, *, end: Callable[[], None]) -> OpenVolume:
        """One more connection; ``end`` cuts it. Raises NotFound or Forbidden."""
        path = self._check(volume)
        with self._lock:
            self._access.connect(volume, client)
            opened = self._open.get(volume)
            if opened is None:
                opened = self._open[volume] = OpenVolume(volume, os.open(path, os.O_RDWR | os.O_CLOEXEC))
            opened.connections += 1
            self._ends.setdefault(client, set()).add(end)
            return opened

    def close(self, opened: OpenVolume, client: Client, *, end: Callable[[], None]) -> None:
        """The connection is at its end, and nothing of it is under way."""
        self._finish_writes(opened.id)
        with self._lock:
            self._access.disconnect(opened.id, client, now_s=self._clock.monotonic_s())
            self._ends[client].discard(end)
            if not self._ends[client]:
                del self._ends[client]
            opened.connections -= 1
            if not opened.connections:
                os.close(opened.descriptor)
                del self._open[opened.id]

    def size_bytes(self, opened: OpenVolume) -> int:
        return os.fstat(opened.descriptor).st_size

    def read(self, opened: OpenVolume, offset: int, length: int) -> bytes:
        self.hang.wait()
        parts, end = [], offset + length
        while offset < end:
            part = os.pread(opened.descriptor, end - offset, offset)
            if not part:
                raise Refused(Errno.EIO)
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def write(self, opened: OpenVolume, client: Client, offset: int, data: bytes, *, durable: bool) -> None:
        """Raises Refused (EPERM) for everybody but the holder."""

        def work() -> None:
            done = 0
            while done < len(data):
                done += os.pwrite(opened.descriptor, data[done:], offset + done)

        self._as_holder(opened, client, work)
        if durable:
            os.fdatasync(opened.descriptor)

    def trim(self, opened: OpenVolume, client: Client, offset: int, length: int) -> None:
        def work() -> None:
            if length:
                _libc.fallocate(
                    opened.descriptor, _PUNCH_HOLE | _KEEP_SIZE, ctypes.c_longlong(offset), ctypes.c_longlong(length)
                )

        self._as_holder(opened, client, work)

    def flush(self, opened: OpenVolume) -> None:
        self.hang.wait()
        os.fdatasync(opened.descriptor)

    def _as_holder(self, opened: OpenVolume, client: Client, work: Callable[[], None]) -> None:
        self.hang.wait()
        with opened.lock:
            with self._lock:
                allowed = self._access.may_write(opened.id, client)
            if not allowed:
                self._tell("pool_refused", client, volume=opened.id)
                raise Refused(Errno.EPERM)
            first_s = self._clock.monotonic_s()
            work()
            self._note(opened, client, first_s, self._clock.monotonic_s())

    def _note(self, opened: OpenVolume, client: Client, first_s: float, last_s: float) -> None:
        span = opened.span
        if span is not None and (span.client != client or last_s - span.first_s > TELL_EVERY_S):
            self._tell_span(opened)
            span = None
        if span is None:
            opened.span = Span(client, first_s, last_s)
            return
        span.last_s = last_s
        span.writes += 1

    def _finish_writes(self, volume: str) -> None:
        """Wait for the write under way: those after it see who holds the volume now."""
        with self._lock:
            opened = self._open.get(volume)
        if opened is not None:
            with opened.lock:
                self._tell_span(opened)

    def _tell_span(self, opened: OpenVolume) -> None:
        span, opened.span = opened.span, None
        if span is not None:
            times: dict[str, float] = {"first_s": span.first_s, "last_s": span.last_s}
            self._tell("storage_write", span.client, volume=opened.id, writes=span.writes, **times)

    def _tell(self, kind: str, client: Client, **facts: str | int | float) -> None:
        self._history.tell(kind, host=client.host, incarnation=client.incarnation, **facts)

    def _check(self, volume: str) -> Path:
        path = self._directory / volume / RAW_DISK
        if not path.is_file():
            raise NotFound(f"failed to find volume {volume}: it is not in this pool")
        return path

    def _save(self) -> None:
        """What changed, the fenced first. They are never fewer: their number tells whether they changed."""
        if len(self._access.fenced) != self._saved_fenced:
            fenced = [[client.host, client.incarnation] for client in sorted(self._access.fenced)]
            write_json(self._state_file.with_name(FENCED_FILE), fenced)
            self._saved_fenced = len(fenced)
        held = _plain(self._access.holders)
        if held != self._saved_holders:
            write_json(self._state_file, {"holders": held})
            self._saved_holders = held

    def _restore(self) -> None:
        plain = read_json(self._state_file) or {}
        fenced = read_json(self._state_file.with_name(FENCED_FILE)) or []
        fenced += plain.get("fenced", [])  # earlier versions had them in the one file
        holders = {volume: Client(*pair) for volume, pair in plain.get("holders", {}).items()}
        # Those of volumes that were deleted are of no use.
        holders = {volume: client for volume, client in holders.items() if (self._directory / volume).is_dir()}
        self._access.restore((Client(*pair) for pair in fenced), holders, now_s=self._clock.monotonic_s())
        self._save()  # from here on both files are of this version


def _plain(holders: Mapping[str, Holder]) -> dict[str, list[str]]:
    return {
        volume: [one.client.host, one.client.incarnation] for volume, one in holders.items() if not is_probe(one.client)
    }
