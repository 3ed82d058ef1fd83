"""The agent's way to the guard: one short connection per request, each with a deadline.

Raises Unavailable if the guard does not answer (nothing is known then: a start may have happened, and asking again
is safe), and the guard's own error otherwise.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ucloud.errors import GuestError, Unavailable
from ucloud.hypervisor.guard_protocol import (
    ANSWER_LIMIT_BYTES,
    Hello,
    Named,
    Only,
    Permit,
    StartRequest,
    VmProcess,
    encode_request,
    parse_answer,
    parse_hello,
    parse_process,
)
from ucloud.system.unix_socket import connect_unix

DEFAULT_TIMEOUT_S = 10.0


class GuardClient:
    """A guard, by the path of its socket. Holds no connection; may be used from any thread."""

    def __init__(self, path: Path, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def hello(self) -> Hello:
        return parse_hello(self._ask(encode_request("hello")))

    def start(self, request: StartRequest, descriptors: Sequence[int] = ()) -> VmProcess:
        """The started process, or the one that already runs for the same VM, generation and boot.

        Raises Conflict if another one runs, or if this very one ran and its end was not collected yet; Conflict
        (``guard_replaced``, ``guard_fenced``, ``guard_sealed``) if this guard starts nothing more or another one holds
        the lock; Unavailable (``no_evidence``) if this host does not know that nobody took it over.
        """
        return parse_process(self._ask(encode_request("start", request), descriptors))

    def list(self, vm_id: str = "") -> tuple[VmProcess, ...]:
        """All processes (or one VM's) that run, or that ended and were not forgotten yet."""
        answer = self._ask(encode_request("list", Only(vm_id)))
        if not isinstance(answer, list):
            raise GuestError("failed to read the guard's answer: no list of processes")
        return tuple(parse_process(plain) for plain in answer)

    def kill(self, named: Named) -> VmProcess:
        """SIGKILL and reap it. Raises NotFound unless exactly this one is there; no error if it has ended."""
        return parse_process(self._ask(encode_request("kill", named)))

    def forget(self, named: Named) -> None:
        """Drop the memory of an ended process. Raises Conflict if it runs; no error if it is unknown."""
        self._ask(encode_request("forget", named))

    def permit(self, named: Named, incarnation: str) -> None:
        """Ask before a VM that stands still goes on (after a migration): raises as ``start`` does if it may not.

        Raises NotFound unless exactly this one is there, Conflict (``ended``, ``frozen``) if it cannot go on.
        """
        self._ask(encode_request("permit", Permit(named.vm_id, named.generation, named.boots, incarnation)))

    def _ask(self, request: bytes, descriptors: Sequence[int] = ()) -> Any:
        try:
            with connect_unix(self._path, self._timeout_s) as connection:
                socket.send_fds(connection, [request[:1]], list(descriptors))
                connection.sendall(request[1:])
                line = _read_line(connection)
        except OSError as error:
            raise Unavailable(
                f"failed to ask the guard: {error.strerror or error}", hint="is 'ucloud guard' running?"
            ) from error
        return parse_answer(line)


def _read_line(connection: socket.socket) -> bytes:
    parts = bytearray()
    while not parts.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            raise Unavailable("failed to ask the guard: it ended before its answer did")
        parts += part
        if len(parts) > ANSWER_LIMIT_BYTES:
            raise GuestError("failed to ask the guard: its answer has no end")
    return bytes(parts)
