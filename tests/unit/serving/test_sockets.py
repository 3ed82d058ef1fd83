"""A client's connection: the deadline is one for all reads, and writes end as well."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ucloud.serving import sockets
from ucloud.serving.sockets import ClientSocket, TooSlow


@pytest.fixture
def pair() -> Iterator[tuple[ClientSocket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted = ClientSocket(listening.accept()[0])
    with client, accepted:
        yield accepted, client


def test_without_leave_only_what_is_there_is_read(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, client = pair
    with pytest.raises(TooSlow):
        ours.recv(10)
    client.sendall(b"abc")
    ours.read_within(5)
    assert ours.recv(1) == b"a"
    ours.read_within(0)
    assert ours.recv(10) == b"bc"


def test_a_drip_does_not_renew_the_deadline(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, client = pair
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.02):
            client.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    before_s = time.monotonic()
    ours.read_within(0.3)
    with pytest.raises(TooSlow):
        while True:
            ours.setblocking(True)  # as gunicorn does
            assert ours.recv(10)
    ended.set()
    thread.join()
    assert 0.2 < time.monotonic() - before_s < 2


def test_who_does_not_read_is_too_slow(
    pair: tuple[ClientSocket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    monkeypatch.setattr(sockets, "_WRITE_S", 0.1)
    with pytest.raises(TooSlow):
        ours.sendall(bytes(64 * 2**20))
    assert ours.has_unsent()


def test_nothing_is_there_or_nobody(pair: tuple[ClientSocket, socket.socket]) -> None:
    ours, client = pair
    assert ours.recv_now(10) is None
    client.close()
    ours.read_within(5)
    assert ours.recv(10) == b""
    assert ours.recv_now(10) == b""
