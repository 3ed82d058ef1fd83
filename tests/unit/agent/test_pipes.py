"""Two joined streams end when either ends, when nothing is said for long, and are watched for peers that vanish."""

from __future__ import annotations

import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from ucloud.agent.pipes import join_streams


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """So many are open that new ones have numbers over 1024, where select(2) ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    held = [os.dup(0)]
    while held[-1] <= 1100:
        held.append(os.dup(0))
    yield
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def joined(first: socket.socket, second: socket.socket, *, idle_s: float = 30.0) -> threading.Thread:
    thread = threading.Thread(target=join_streams, args=(first, second), kwargs={"idle_s": idle_s})
    thread.start()
    return thread


def check_both_ways() -> None:
    (left, first), (right, second) = socket.socketpair(), socket.socketpair()
    with left, first, right, second:
        left.settimeout(5)
        right.settimeout(5)
        thread = joined(first, second)
        left.sendall(b"there")
        assert right.recv(100) == b"there"
        right.sendall(b"and back")
        assert left.recv(100) == b"and back"
        left.close()
        thread.join(5)
        assert not thread.is_alive()


def test_bytes_go_both_ways_until_one_ends() -> None:
    check_both_ways()


def test_with_many_descriptors(many_descriptors: None) -> None:
    check_both_ways()


def test_nothing_said_for_long_is_an_end() -> None:
    (left, first), (right, second) = socket.socketpair(), socket.socketpair()
    with left, first, right, second:
        thread = joined(first, second, idle_s=0.05)
        thread.join(5)
        assert not thread.is_alive()


def test_a_peer_that_vanishes_is_noticed_by_the_kernel() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as far:
        first, _ = server.accept()
        left, second = socket.socketpair()
        with first, left, second:
            thread = joined(first, second)
            left.sendall(b"x")
            assert far.recv(1) == b"x"
            assert first.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            times = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            idle_s, every_s, count = (first.getsockopt(socket.IPPROTO_TCP, name) for name in times)
            assert idle_s + every_s * count <= 60
            far.close()
            thread.join(5)
            assert not thread.is_alive()
