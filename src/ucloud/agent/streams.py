"""The two ends of a live migration's stream, at its source and at its target (docs/decisions/0008).

The source opens ``GET /v1/migrations/<vm>/<id>`` with an Upgrade at the target's door. Both ends give QEMU one half of
a socket pair and carry the bytes of the other half. Must hold: one stream per VM; an agent that ends, ends its
streams, which ends their migrations and no guest: the source's runs on, since it still has the run lock.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from ucloud.agent.pump import pump
from ucloud.errors import Conflict, Unavailable
from ucloud.system.door import door_cause, open_door

logger = logging.getLogger(__name__)

PROTOCOL = "ucloud-migration"
CONNECT_TIMEOUT_S = 5.0
_HEAD_LIMIT_BYTES = 4096
# Small: what stands in buffers when the guest stops must still be carried before it can go on. QEMU judges the speed
# by what it could write.
_BUFFER_BYTES = 1 << 18


def migration_path(vm_id: str, migration_id: str) -> str:
    return f"/v1/migrations/{vm_id}/{migration_id}"


class Streams:
    """All streams of one agent. ``on_end`` is called with the VM's id when one of them is over."""

    def __init__(self, context: ssl.SSLContext, on_end: Callable[[str], None]) -> None:
        self._context = context
        self._on_end = on_end
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._locals: set[socket.socket] = set()

    def send(self, vm_id: str, *, path: str, door: str, begin: Callable[[int], None]) -> None:
        """Connect to ``path`` at the other host's ``door``, call ``begin`` with the descriptor for QEMU, and carry.

        Raises Unavailable (also in the other host's words), Conflict, or what ``begin`` raises; then nothing is left.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._alone(vm_id))
            remote = stack.enter_context(_open_upgrade(door, path, self._context))
            local, theirs = stack.enter_context(_pair())
            with theirs:
                begin(theirs.fileno())
            kept = stack.pop_all()

        def carry() -> None:
            with kept:
                self._carry(vm_id, local, remote)
            self._on_end(vm_id)

        threading.Thread(target=carry, name=f"migration-{vm_id}", daemon=True).start()

    @contextlib.contextmanager
    def receiving(self, vm_id: str, begin: Callable[[int], None]) -> Iterator[Callable[[socket.socket], None]]:
        """The same for the target: QEMU has its end; the function given carries until the end of the stream."""
        with self._alone(vm_id), _pair() as (local, theirs):
            with theirs:
                begin(theirs.fileno())
            yield lambda remote: self._carry(vm_id, local, remote)
        self._on_end(vm_id)

    def close(self) -> None:
        """End all streams, as the end of the agent would."""
        with self._lock:
            for local in self._locals:
                with contextlib.suppress(OSError):
                    local.shutdown(socket.SHUT_RDWR)

    def _carry(self, vm_id: str, local: socket.socket, remote: socket.socket) -> None:
        with self._lock:
            self._locals.add(local)
        try:
            why = pump(local, remote)
        finally:
            with self._lock:
                self._locals.discard(local)
        logger.info("vm=%s the stream of its migration ended%s", vm_id, f": {why}" if why else "")

    @contextlib.contextmanager
    def _alone(self, vm_id: str) -> Iterator[None]:
        with self._lock:
            if vm_id in self._open:
                raise Conflict(f"failed to migrate vm {vm_id}: a stream of it is open", code="migrating")
            self._open.add(vm_id)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(vm_id)


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Ours, and the one for QEMU. Both are closed at the end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for one in (ours, theirs):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        yield ours, theirs


def _open_upgrade(door: str, path: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    place = urlsplit(door).netloc
    stream = open_door(door, context, timeout_s=CONNECT_TIMEOUT_S)
    try:
        lines = (f"GET {path} HTTP/1.1", f"Host: {place}", "Connection: Upgrade", f"Upgrade: {PROTOCOL}", "", "")
        stream.sendall("\r\n".join(lines).encode("ascii"))
        _check_answer(_read_head(stream), stream)
    except OSError as error:
        stream.close()
        raise Unavailable(f"failed to talk to the host at {place}: {door_cause(error)}") from error
    except BaseException:
        stream.close()
        raise
    return stream


def _read_head(stream: ssl.SSLSocket) -> bytes:
    """Byte by byte, so that nothing of what follows is taken."""
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte or len(head) > _HEAD_LIMIT_BYTES:
            raise Unavailable("failed to migrate: the other host's door gave no answer")
        head += byte
    return bytes(head)


def _check_answer(head: bytes, stream: ssl.SSLSocket) -> None:
    status = head.split(b"\r\n", 1)[0].split(b" ")[1:2]
    if status == [b"101"]:
        return
    words = stream.recv(_HEAD_LIMIT_BYTES).decode(errors="replace").strip()
    raise Unavailable(f"failed to migrate: the other host answered: {words or 'no'}", code="migration_refused")
