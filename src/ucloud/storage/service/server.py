"""The listener for NBD clients: a thread each, only so many of them, and an orderly end."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading

from ucloud.errors import Unavailable
from ucloud.storage.service.connection import Connection
from ucloud.storage.service.room import Room
from ucloud.storage.service.volumes import Volumes

logger = logging.getLogger(__name__)

CONNECTIONS_LIMIT = 2048  # one for each volume in use, and twice that while it moves


def listen(host: str, port: int) -> socket.socket:
    """Raises Unavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        raise Unavailable(f"failed to listen on {host} port {port}: {error.strerror}") from error


class NbdServer:
    def __init__(self, volumes: Volumes, listener: socket.socket) -> None:
        self._volumes = volumes
        self._listener = listener
        self._lock = threading.Lock()
        self._connections: dict[Connection, threading.Thread] = {}
        self._room = Room(CONNECTIONS_LIMIT, "NBD")
        self._thread = threading.Thread(target=self._accept, name="nbd")

    def start(self) -> None:
        self._volumes.late.start()
        self._thread.start()

    def stop(self) -> None:
        """Cut all clients; what they have sent is done or dropped when this returns."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self._volumes.hang.begin(0.0)
        with self._lock:
            running = dict(self._connections)
        for connection in running:
            connection.cut()
        self._volumes.late.stop()
        for thread in running.values():
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if not self._room.enter():
                sock.close()
                continue
            connection = Connection(sock, self._volumes)
            thread = threading.Thread(target=self._serve, args=(connection,), name="nbd-client", daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            with self._lock:
                self._connections.pop(connection, None)
            self._room.leave()
