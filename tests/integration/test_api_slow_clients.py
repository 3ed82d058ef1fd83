"""Clients without a token that send slowly, do not read, or never hang up: the API goes on answering the others."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.api_server import Api, running

CLIENTS = 50
QUICK_S = 2.0
_SOON_S = 20.0


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with running(tmp_path, Path(__file__).with_name("memory_api.py")) as api:
        yield api


@pytest.fixture
def opened(api: Api) -> Iterator[Callable[..., socket.socket]]:
    """Opens connections to the API, closed at the end."""
    with contextlib.ExitStack() as stack:

        def connect(*, receive_bytes: int = 0) -> socket.socket:
            sock = stack.enter_context(socket.socket())
            if receive_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            sock.settimeout(_SOON_S)
            sock.connect(("127.0.0.1", api.port))
            return sock

        yield connect


def assert_quick(api: Api, *, times: int = 5) -> None:
    for _ in range(times):
        before_s = time.monotonic()
        assert api.ask("GET", "/v1/health", timeout_s=QUICK_S)[0] == 200
        assert time.monotonic() - before_s < QUICK_S


def test_heads_that_drip(api: Api, opened: Callable[..., socket.socket]) -> None:
    sockets = [opened() for _ in range(CLIENTS)]
    until_s = time.monotonic() + 4
    sent = 0
    while time.monotonic() < until_s:
        letter = b"GET /v1/health HTTP/1.1\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"[sent : sent + 1]
        for sock in sockets:
            sock.sendall(letter)
        sent += 1
        assert_quick(api, times=1)
    sockets[0].sendall(b"\r\n\r\n")
    assert sockets[0].recv(12) == b"HTTP/1.1 200"


def test_a_head_has_a_deadline(api: Api, opened: Callable[..., socket.socket]) -> None:
    """However it drips: the clock does not start anew with each byte."""
    sock = opened()
    sock.sendall(b"GET /v1/health HTTP/1.1\r\n")
    until_s = time.monotonic() + _SOON_S
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < until_s:
            sock.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                assert sock.recv(1) == b""
                break
            sock.sendall(b"X")
    assert time.monotonic() < until_s


def test_connections_that_say_nothing(api: Api, opened: Callable[..., socket.socket]) -> None:
    for _ in range(CLIENTS):
        opened()
    assert_quick(api)


@pytest.mark.parametrize(
    "request_text",
    [
        "GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "GET /v1/vms HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{",
        "POST /v1/vms HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n{",
        "\r\n\r\nGET /v1/health HTTP/1.1\r\n",
        "nonsense\r\n\r\n",
        "GET /v1/health HTTP/1.1\r\nX: " + "a" * 100_000,
    ],
)
def test_clients_that_never_hang_up(api: Api, opened: Callable[..., socket.socket], request_text: str) -> None:
    for _ in range(CLIENTS):
        opened().sendall(request_text.encode())
    assert_quick(api)


def test_clients_that_do_not_read(api: Api, opened: Callable[..., socket.socket]) -> None:
    """Each asks for the largest document again and again."""
    for _ in range(CLIENTS):
        sock = opened(receive_bytes=2048)
        sock.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    assert_quick(api)


def test_more_connections_than_there_is_room_for(api: Api, opened: Callable[..., socket.socket]) -> None:
    """Those that have said nothing for longest are dropped."""
    first = opened()
    for _ in range(600):
        opened()
    assert_quick(api)
    assert first.recv(1) == b""


def test_a_connection_is_kept_and_used_again(api: Api, opened: Callable[..., socket.socket]) -> None:
    sock = opened()
    with sock.makefile("rb") as answers:
        for _ in range(3):
            sock.sendall(b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n")
            length = 0
            assert answers.readline().startswith(b"HTTP/1.1 200")
            while (line := answers.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert len(answers.read(length)) == length > 0
