"""A synchronous client of QEMU's machine protocol (QMP) over a unix socket.

QEMU is not trusted: a guest that took it over may send anything. So every wait has a deadline, every line and queue
has a limit, and what is no QMP raises GuestError. No answer in time, or no QEMU at all, raises Unavailable: then
nothing is known about the guest, nor whether the command was done.
"""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ucloud.errors import GuestError, Unavailable
from ucloud.system.unix_socket import connect_unix

DEFAULT_TIMEOUT_S = 5.0
LINE_LIMIT_BYTES = 1 << 20
EVENTS_LIMIT = 256
_COMMAND_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Greeting:
    version: str


@dataclass(frozen=True, slots=True)
class Answer:
    """``id`` is that of the command, −1 if QEMU could not read one. ``error`` is "" for success."""

    id: int
    value: Any = None
    error: str = ""
    error_class: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """``name`` as QEMU spells it: SHUTDOWN, STOP, GUEST_PANICKED…"""

    name: str
    data: Mapping[str, Any]


Message = Greeting | Answer | Event


def parse_message(line: bytes) -> Message:
    """One line of QMP. Raises GuestError for anything else."""
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise GuestError("failed to read QMP: a line is not JSON", code="qmp_broken") from error
    if not isinstance(plain, dict):
        raise GuestError("failed to read QMP: a line is no JSON object", code="qmp_broken")
    if "QMP" in plain:
        return Greeting(_parse_version(plain["QMP"]))
    if isinstance(plain.get("event"), str):
        data = plain.get("data")
        return Event(plain["event"], data if isinstance(data, dict) else {})
    number = plain.get("id")
    answer_id = number if isinstance(number, int) else -1
    if "return" in plain:
        return Answer(answer_id, plain["return"])
    if isinstance(plain.get("error"), dict):
        said = plain["error"]
        return Answer(answer_id, None, str(said.get("desc", "no reason given"))[:500], str(said.get("class", "")))
    raise GuestError("failed to read QMP: neither greeting, event nor answer", code="qmp_broken")


def _parse_version(greeting: Any) -> str:
    """ "7.2.22" of a greeting; "" if it does not say."""
    try:
        numbers = greeting["version"]["qemu"]
        return f"{int(numbers['major'])}.{int(numbers['minor'])}.{int(numbers['micro'])}"
    except (TypeError, KeyError, ValueError):
        return ""


class Lines:
    """Cuts a stream of bytes into lines of bounded length. Pure: it is fed, it does not read."""

    def __init__(self, limit_bytes: int = LINE_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes, without empty ones. Raises GuestError for a line over the limit."""
        start = len(self._rest)
        self._rest += data
        end = self._rest.rfind(b"\n", start)
        lines: list[bytes] = []
        if end >= 0:
            lines = [line for line in bytes(self._rest[:end]).splitlines() if line.strip()]
            del self._rest[: end + 1]
        if max(map(len, [bytes(self._rest), *lines])) > self._limit_bytes:
            raise GuestError("failed to read QMP: a line has no end", code="qmp_broken")
        return lines


class Qmp:
    """A connection to one QEMU, which serves one at a time: keep it short, close it soon. Not for several threads."""

    def __init__(self, connection: socket.socket, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        """Takes ``connection`` over, waits for the greeting and agrees on the protocol."""
        self._socket = connection
        self._timeout_s = timeout_s
        self._lines = Lines()
        self._queue: deque[bytes] = deque()
        self._last_id = 0
        self.events: deque[Event] = deque(maxlen=EVENTS_LIMIT)
        try:
            self.version = self._greet(time.monotonic() + timeout_s)
            self.execute("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    @classmethod
    def connect(cls, path: Path, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Qmp:
        try:
            connection = connect_unix(path, timeout_s)
        except OSError as error:
            raise Unavailable(f"failed to reach QEMU at {path.name}: {error.strerror or error}") from error
        return cls(connection, timeout_s=timeout_s)

    def execute(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = 0.0,
        descriptors: Sequence[int] = (),
    ) -> Any:
        """The command's result. Raises GuestError with QEMU's words if it refuses, Unavailable without an answer.

        ``descriptors`` go along with it (SCM_RIGHTS), for ``getfd``; they stay the caller's.
        """
        deadline_s = time.monotonic() + (timeout_s or self._timeout_s)
        self._last_id += 1
        request: dict[str, Any] = {"execute": command, "id": self._last_id}
        if arguments:
            request["arguments"] = arguments
        line = json.dumps(request).encode() + b"\n"
        if len(line) > _COMMAND_LIMIT_BYTES:
            raise GuestError(f"failed to run QMP {command}: the command is too long")
        self._send(line, deadline_s, descriptors)
        while True:
            message = self._next(deadline_s, command)
            if not isinstance(message, Answer) or message.id not in (self._last_id, -1):
                continue  # the late answer of a command that was given up
            if message.error:
                raise GuestError(f"failed to run QMP {command}: {message.error}", code="qmp_refused")
            return message.value

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _greet(self, deadline_s: float) -> str:
        while True:
            message = self._next(deadline_s, "greeting")
            if isinstance(message, Greeting):
                return message.version
            if isinstance(message, Answer):
                raise GuestError("failed to read QMP: an answer before the greeting", code="qmp_broken")

    def _next(self, deadline_s: float, what: str) -> Message:
        """The next message; events are kept on the way."""
        while not self._queue:
            self._queue.extend(self._lines.feed(self._receive(deadline_s, what)))
        if time.monotonic() > deadline_s:
            raise Unavailable(f"failed to run QMP {what}: no answer in time", code="qmp_timeout")
        message = parse_message(self._queue.popleft())
        if isinstance(message, Event):
            self.events.append(message)
        return message

    def _send(self, line: bytes, deadline_s: float, descriptors: Sequence[int]) -> None:
        try:
            self._socket.settimeout(max(0.001, deadline_s - time.monotonic()))
            if descriptors:  # with the first byte; the rest follows as usual
                socket.send_fds(self._socket, [line[:1]], list(descriptors))
                line = line[1:]
            self._socket.sendall(line)
        except OSError as error:
            raise Unavailable(f"failed to send to QEMU: {error.strerror or error}") from error

    def _receive(self, deadline_s: float, what: str) -> bytes:
        try:
            self._socket.settimeout(max(0.001, deadline_s - time.monotonic()))
            data = self._socket.recv(65536)
        except TimeoutError as error:
            raise Unavailable(f"failed to run QMP {what}: no answer in time", code="qmp_timeout") from error
        except OSError as error:
            raise Unavailable(f"failed to run QMP {what}: {error.strerror}") from error
        if not data:
            raise Unavailable(f"failed to run QMP {what}: QEMU closed the connection")
        return data
