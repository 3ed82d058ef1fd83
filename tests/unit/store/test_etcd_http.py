"""One HTTP connection: heads, bodies, chunks, silence and deadlines, over a socket pair."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ucloud.errors import InvalidInput
from ucloud.store.etcd_http import (
    Connection,
    Endpoint,
    Head,
    Silence,
    TransportError,
    connect,
    parse_endpoint,
    parse_head,
)
from ucloud.system.clock import SystemClock

Pair = tuple[Connection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    near, far = socket.socketpair()
    connection = Connection(Endpoint("h", 1, False), near, SystemClock())
    yield connection, far
    connection.close()
    far.close()


def soon(seconds: float = 5.0) -> float:
    return SystemClock().monotonic_s() + seconds


@pytest.mark.parametrize(
    ("url", "endpoint", "text"),
    [
        ("https://127.0.0.1:2379", Endpoint("127.0.0.1", 2379, True), "https://127.0.0.1:2379"),
        ("https://[::1]:1", Endpoint("::1", 1, True), "https://[::1]:1"),
        ("http://name/", Endpoint("name", 2379, False), "http://name:2379"),
    ],
)
def test_endpoints(url: str, endpoint: Endpoint, text: str) -> None:
    assert parse_endpoint(url) == endpoint
    assert str(endpoint) == text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:2379",
        "ftp://a",
        "https://",
        "https://a:x",
        "https://a:99999",
        "https://u:secret@a",
        "https://a/b",
    ],
)
def test_bad_endpoints(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_endpoint(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "head"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", Head(200, False, 5, True)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", Head(200, True, None, True)),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close", Head(503, False, 0, False)),
        ("HTTP/1.0 200 OK", Head(200, False, None, False)),
    ],
)
def test_heads(text: str, head: Head) -> None:
    assert parse_head(text) == head


@pytest.mark.parametrize("text", ["", "SSH-2.0", "HTTP/2 200", "HTTP/1.1 abc"])
def test_what_is_not_http(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_head(text)


def test_chunks_in_pieces(pair: Pair) -> None:
    connection, far = pair
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n"

    def drip() -> None:
        for index in range(len(answer)):
            far.sendall(answer[index : index + 1])

    thread = threading.Thread(target=drip)
    thread.start()
    head = connection.read_head(deadline_s=soon())
    assert connection.read_body(head, deadline_s=soon()) == b"hello world"
    thread.join()
    assert connection.is_idle()


def test_silence_loses_nothing(pair: Pair) -> None:
    connection, far = pair
    far.sendall(b"5\r\nhel")
    with pytest.raises(Silence):
        connection.read_chunk(deadline_s=soon(0.05))
    far.sendall(b"lo\r\n")
    assert connection.read_chunk(deadline_s=soon()) == b"hello"


def test_a_slow_peer_cannot_stretch_the_deadline(pair: Pair) -> None:
    connection, far = pair
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.02):
            far.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    started_s = time.monotonic()
    with pytest.raises(Silence):
        connection.read_head(deadline_s=soon(0.2))
    assert time.monotonic() - started_s < 1
    stop.set()
    thread.join()


def test_an_early_end(pair: Pair) -> None:
    connection, far = pair
    far.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    far.close()
    head = connection.read_head(deadline_s=soon())
    with pytest.raises(TransportError) as failure:
        connection.read_body(head, deadline_s=soon())
    assert failure.value.maybe_done


def test_a_body_until_the_end(pair: Pair) -> None:
    connection, far = pair
    far.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
    far.close()
    head = connection.read_head(deadline_s=soon())
    assert connection.read_body(head, deadline_s=soon()) == b"hello"


@pytest.mark.parametrize("data", [b"zz\r\n", b"x" * 70_000, b"HELLO\r\n\r\n"])
def test_nonsense(pair: Pair, data: bytes) -> None:
    connection, far = pair
    far.sendall(data)
    with pytest.raises(TransportError):
        if data.startswith(b"zz"):
            connection.read_chunk(deadline_s=soon())
        else:
            connection.read_head(deadline_s=soon())


def test_an_idle_connection_that_ended_is_seen(pair: Pair) -> None:
    connection, far = pair
    assert connection.is_idle()
    far.close()
    assert not connection.is_idle()


def test_cut_ends_a_reader(pair: Pair) -> None:
    connection, _far = pair
    ended = threading.Event()

    def read() -> None:
        with pytest.raises(TransportError):
            connection.read_chunk(deadline_s=soon(10))
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    connection.cut()
    assert ended.wait(2)
    thread.join()


def test_a_lost_first_packet_is_not_waited_for() -> None:
    """A listener whose queue is full loses first packets; the kernel repeats one only after 1 s."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        waiting = [socket.create_connection(("127.0.0.1", port), 1)]
        make_room = threading.Timer(0.1, lambda: waiting.append(server.accept()[0]))
        make_room.start()
        clock = SystemClock()
        began_s = clock.monotonic_s()
        connect(Endpoint("127.0.0.1", port, tls=False), None, clock, deadline_s=began_s + 5).close()
        assert 0.1 < clock.monotonic_s() - began_s < 0.8
        make_room.join()
        for one in waiting:
            one.close()


def test_nobody_is_waited_for_longer_than_wished() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), 1), pytest.raises(TransportError, match="in time") as raised:
            connect(Endpoint("127.0.0.1", port, tls=False), None, SystemClock(), deadline_s=soon(0.4))
        assert not raised.value.maybe_done
