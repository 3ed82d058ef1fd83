"""The guard's unix socket: many short connections in one thread, none of which can hold up another.

A connection sends one line (with descriptors) and gets one line. It is dropped if it is not root's, too slow, too
long, or sends too many descriptors; descriptors are closed whatever happens. What lets a VM run is done only for
somebody who still waits for it: whoever gave up may have asked elsewhere since.
"""

from __future__ import annotations

import array
import contextlib
import logging
import os
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ucloud.errors import Error, InvalidInput
from ucloud.hypervisor.guard_protocol import FDS_LIMIT, REQUEST_LIMIT_BYTES, encode_answer, encode_error, parse_request
from ucloud.system.clock import Clock
from ucloud.system.process_unix import peer_of
from ucloud.system.unix_socket import listen_unix

_log = logging.getLogger(__name__)

CONNECTIONS_LIMIT = 128
_CONNECTION_S = 5.0
_ONLY_IF_AWAITED = frozenset(("start", "permit"))
_INT_BYTES = array.array("i").itemsize

Handler = Callable[[str, Mapping[str, Any], Sequence[int]], Any]


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    deadline_s: float
    request: bytearray = field(default_factory=bytearray)
    descriptors: list[int] = field(default_factory=list)
    answer: bytes = b""

    def close(self) -> None:
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        self.socket.close()


class Server:
    """``handler`` is called with op, fields and descriptors; what it returns or raises (an Error) is the answer."""

    def __init__(self, path: Path, handler: Handler, clock: Clock) -> None:
        self._handler = handler
        self._clock = clock
        self._connections: dict[int, _Connection] = {}
        self._listener = listen_unix(path, backlog=CONNECTIONS_LIMIT)
        self._listener.setblocking(False)

    def serve(self, also: Sequence[int], timeout_s: float) -> set[int]:
        """Serve what is ready, once; returns which of ``also`` became readable within ``timeout_s``."""
        poll = select.poll()
        for descriptor in also:
            poll.register(descriptor, select.POLLIN)
        if len(self._connections) < CONNECTIONS_LIMIT:
            poll.register(self._listener, select.POLLIN)
        for number, connection in self._connections.items():
            poll.register(number, select.POLLOUT if connection.answer else select.POLLIN)
        ready = {number for number, _ in poll.poll(timeout_s * 1000)}
        self._drop_late()  # first: the time may have passed while this thread did something else
        for number in ready & self._connections.keys():
            self._turn(number)
        if self._listener.fileno() in ready:
            self._accept()
        return ready & set(also)

    def close(self) -> None:
        for number in list(self._connections):
            self._connections.pop(number).close()
        self._listener.close()

    def _accept(self) -> None:
        while len(self._connections) < CONNECTIONS_LIMIT:
            try:
                accepted, _ = self._listener.accept()
            except OSError:  # nobody more waits, or the caller is gone again
                return
            accepted.setblocking(False)
            if peer_of(accepted)[1] != os.geteuid():
                accepted.close()
                continue
            self._connections[accepted.fileno()] = _Connection(accepted, self._clock.monotonic_s() + _CONNECTION_S)

    def _turn(self, number: int) -> None:
        connection = self._connections[number]
        try:
            done = self._send(connection) if connection.answer else self._receive(connection)
        except BlockingIOError:
            return
        except OSError:
            done = True
        if done:
            del self._connections[number]
            connection.close()

    def _receive(self, connection: _Connection) -> bool:
        """Read what is there; answer a whole request. True if the connection is over."""
        room = socket.CMSG_SPACE(FDS_LIMIT * _INT_BYTES)
        data, ancillary, flags, _ = connection.socket.recvmsg(65536, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % _INT_BYTES])
                connection.descriptors.extend(numbers)
        if not data or len(connection.descriptors) > FDS_LIMIT or flags & socket.MSG_CTRUNC:
            return True
        connection.request += data
        if b"\n" in data:
            connection.answer = self._answer(connection)
            return not connection.answer or self._send(connection)
        return len(connection.request) > REQUEST_LIMIT_BYTES

    def _answer(self, connection: _Connection) -> bytes:
        """Do what is asked. Empty if nobody waits for it any more: then it was not done."""
        try:
            if len(connection.request) > REQUEST_LIMIT_BYTES:
                raise InvalidInput("failed to read the request: it is too long")
            op, plain = parse_request(bytes(connection.request))
            if op in _ONLY_IF_AWAITED and not _is_awaited(connection.socket):
                _log.warning("a request to %s is dropped: whoever asked has gone", op)
                return b""
            return encode_answer(self._handler(op, plain, connection.descriptors))
        except Error as error:
            return encode_error(error)
        except Exception as error:  # noqa: BLE001 - whatever one request does, the VMs of the others live on
            _log.exception("a request failed")
            return encode_error(Error(f"failed to do what was asked: {error}"))
        finally:
            for descriptor in connection.descriptors:
                os.close(descriptor)
            connection.descriptors.clear()

    def _send(self, connection: _Connection) -> bool:
        with contextlib.suppress(BlockingIOError):
            sent = connection.socket.send(connection.answer)
            connection.answer = connection.answer[sent:]
            return not connection.answer
        return False

    def _drop_late(self) -> None:
        now_s = self._clock.monotonic_s()
        for number in [number for number, one in self._connections.items() if one.deadline_s < now_s]:
            self._connections.pop(number).close()


def _is_awaited(asker: socket.socket) -> bool:
    """Whether the other side still has its end open."""
    try:
        return bool(asker.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return True
    except OSError:
        return False
