"""Two streams joined: what comes from one goes to the other, until either ends."""

from __future__ import annotations

import contextlib
import socket
import ssl

from ucloud.system.readable import wait_readable

CHUNK_BYTES = 16 * 1024
SEND_TIMEOUT_S = 30.0
IDLE_S = 4 * 3600.0
KEEPALIVE_IDLE_S, KEEPALIVE_EVERY_S, KEEPALIVE_COUNT = 15, 5, 3


def join_streams(first: socket.socket, second: socket.socket, *, idle_s: float = IDLE_S) -> None:
    """Returns when one of them has ended, does not take anything for SEND_TIMEOUT_S, or both are silent for ``idle_s``.

    A peer that vanished without a word counts as ended after half a minute. Closes neither.
    """
    other = {first: second, second: first}
    for stream in other:
        stream.settimeout(SEND_TIMEOUT_S)
        _keep_alive(stream)
    with contextlib.suppress(OSError):
        while ready := _wait(first, second, idle_s=idle_s):
            for stream in ready:
                data = stream.recv(CHUNK_BYTES)
                if not data:
                    return
                other[stream].sendall(data)


def _keep_alive(stream: socket.socket) -> None:
    if stream.family not in (socket.AF_INET, socket.AF_INET6):
        return
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)


def _wait(*streams: socket.socket, idle_s: float) -> list[socket.socket]:
    """Those with something to read; TLS may hold decrypted bytes that the kernel knows nothing of."""
    pending: list[socket.socket] = [
        stream for stream in streams if isinstance(stream, ssl.SSLSocket) and stream.pending()
    ]
    if pending:
        return pending
    ready = wait_readable((stream.fileno() for stream in streams), idle_s)
    return [stream for stream in streams if stream.fileno() in ready]
