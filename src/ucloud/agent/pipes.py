"""Two streams joined: what comes from one goes to the other, until either ends."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl

CHUNK_BYTES = 16 * 1024
SEND_TIMEOUT_S = 30.0


def join_streams(first: socket.socket, second: socket.socket) -> None:
    """Returns when one of them has ended or does not take anything for SEND_TIMEOUT_S. Closes neither."""
    other = {first: second, second: first}
    for stream in other:
        stream.settimeout(SEND_TIMEOUT_S)
    with contextlib.suppress(OSError):
        while True:
            for stream in _readable(first, second):
                data = stream.recv(CHUNK_BYTES)
                if not data:
                    return
                other[stream].sendall(data)


def _readable(*streams: socket.socket) -> list[socket.socket]:
    """Those with something to read; TLS may hold decrypted bytes that the kernel knows nothing of."""
    pending: list[socket.socket] = [
        stream for stream in streams if isinstance(stream, ssl.SSLSocket) and stream.pending()
    ]
    return pending or select.select(streams, [], [])[0]
