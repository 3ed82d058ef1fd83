"""ssh and log: addresses, the command line, what is new in a log."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.cli.ssh import SshTarget, pick_address, render_ssh, wait_for_ssh
from ucloud.cli.vm_access import measure_overlap
from ucloud.errors import Conflict, DeadlineExceeded


def test_ssh_command_line() -> None:
    target = SshTarget("fd00::5", "root", "vm-1", Path("/home/me/.ucloud/known_hosts"), Path("/keys/work"))
    assert render_ssh(target, ["ls", "-l"]) == [
        "ssh",
        "-o",
        "HostKeyAlias=vm-1",
        "-o",
        'UserKnownHostsFile="/home/me/.ucloud/known_hosts"',
        "-o",
        "StrictHostKeyChecking=accept-new",
        "-i",
        "/keys/work",
        "-o",
        "IdentitiesOnly=yes",
        "-l",
        "root",
        "fd00::5",
        "--",
        "ls",
        "-l",
    ]
    assert render_ssh(SshTarget("10.0.0.5", "debian", "vm-1", Path("/k")))[-3:] == ["-l", "debian", "10.0.0.5"]


def test_the_address_is_ipv6_where_there_is_one() -> None:
    nics = [{"ipv4": "10.0.0.5", "ipv6": ""}, {"ipv4": "10.1.0.5", "ipv6": "fd00::5"}]
    vm = {"name": "web1", "spec": {"nics": nics}}
    assert pick_address(vm) == "fd00::5"
    assert pick_address(vm, family=4) == "10.0.0.5"
    assert pick_address({"name": "web1", "spec": {"nics": nics[:1]}}) == "10.0.0.5"
    with pytest.raises(Conflict, match="no IPv6 address"):
        pick_address({"name": "web1", "spec": {"nics": nics[:1]}}, family=6)


def test_waiting_for_ssh() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            for greeting in (b"", b"SSH-2.0-dropbear\r\n"):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        wait_for_ssh("127.0.0.1", server.getsockname()[1], 10)
        thread.join()
        port = server.getsockname()[1]
    with pytest.raises(DeadlineExceeded, match="no ssh server answered"):
        wait_for_ssh("127.0.0.1", port, 0.01)


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        (b"", b"ab", b"ab"),
        (b"ab", b"", b""),
        (b"ab", b"ab", b""),
        (b"ab", b"abc", b"c"),
        (b"abcdef", b"defgh", b"gh"),
        (b"xaxa", b"axax", b"x"),
        (b"aaaa", b"aaaa", b""),
        (b"abcdef", b"def", b""),
        (b"abc", b"xyz", b"xyz"),
        (b"aabaa", b"aabaab", b"b"),
    ],
)
def test_news_of_a_log(before: bytes, now: bytes, news: bytes) -> None:
    assert now[measure_overlap(before, now) :] == news


@given(st.binary(max_size=8), st.binary(min_size=1, max_size=6), st.binary(max_size=6))
def test_overlap_is_the_longest(head: bytes, shared: bytes, tail: bytes) -> None:
    before, now = head + shared, shared + tail
    expected = max(n for n in range(len(now) + 1) if before.endswith(now[:n]))
    assert measure_overlap(before, now) == expected
