"""Unix stream sockets by paths of any length: bind(2) and connect(2) themselves take 107 bytes only."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path


def connect_unix(path: Path, timeout_s: float) -> socket.socket:
    """A connected socket with that timeout. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout_s)
    return _by_directory(connection, path, connection.connect)


def listen_unix(path: Path, *, backlog: int = 8) -> socket.socket:
    """A listening socket in place of whatever was at ``path``; only our user can connect. Raises OSError."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    os.fchmod(listener.fileno(), 0o600)  # the file takes the socket's mode, less the umask
    _by_directory(listener, path, listener.bind)
    listener.listen(backlog)
    return listener


def _by_directory(sock: socket.socket, path: Path, call: Callable[[str], None]) -> socket.socket:
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            call(f"/proc/self/fd/{directory}/{path.name}")
        finally:
            os.close(directory)
    except BaseException:
        sock.close()
        raise
    return sock
