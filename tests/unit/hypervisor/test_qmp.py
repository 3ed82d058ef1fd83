"""QMP against peers that are broken, slow or hostile."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.errors import Error, GuestError, Unavailable
from ucloud.hypervisor.qmp import LINE_LIMIT_BYTES, Answer, Event, Greeting, Lines, Qmp, parse_message

GREETING = b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}\r\n'


def test_messages() -> None:
    assert parse_message(GREETING) == Greeting("7.2.22")
    assert parse_message(b'{"return": {}, "id": 3}') == Answer(3, {})
    assert parse_message(b'{"event": "STOP", "data": {"a": 1}}') == Event("STOP", {"a": 1})
    refused = b'{"id": 4, "error": {"class": "CommandNotFound", "desc": "no"}}'
    assert parse_message(refused) == Answer(4, None, "no", "CommandNotFound")


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"7", b"{}", b'{"error": 3}', b"\xff\xfe", b"[" * 100_000])
def test_no_messages(line: bytes) -> None:
    with pytest.raises(GuestError):
        parse_message(line)


@pytest.mark.parametrize("version", ["", "7", {}, {"qemu": 7}, {"qemu": {"major": "x"}}, None])
def test_a_greeting_may_hide_its_version(version: Any) -> None:
    assert parse_message(json.dumps({"QMP": {"version": version}}).encode()) == Greeting("")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_guest_error(line: bytes) -> None:
    with contextlib.suppress(GuestError):
        assert isinstance(parse_message(line), Greeting | Answer | Event)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["QMP", "version", "qemu", "event", "data", "return", "error", "id"]), inner)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_a_message_or_a_guest_error(value: Any) -> None:
    with contextlib.suppress(GuestError):
        assert isinstance(parse_message(json.dumps(value).encode()), Greeting | Answer | Event)


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(parts: list[bytes]) -> None:
    pieces, whole = Lines(), Lines()
    apart = [line for part in parts for line in pieces.feed(part)]
    assert apart == whole.feed(b"".join(parts))


def test_a_line_has_a_limit() -> None:
    lines = Lines(limit_bytes=10)
    assert lines.feed(b"0123456789\n01234") == [b"0123456789"]
    with pytest.raises(GuestError):
        lines.feed(b"567890")
    with pytest.raises(GuestError):
        Lines(limit_bytes=10).feed(b"01234567890\n")


Peer = Callable[[socket.socket], None]


@pytest.fixture
def against() -> Iterator[Callable[[Peer], socket.socket]]:
    """A connection whose other side is played by a function in a thread."""
    opened: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def play(peer: Peer) -> socket.socket:
        ours, theirs = socket.socketpair()
        opened.extend((ours, theirs))

        def run() -> None:
            with contextlib.suppress(OSError):
                peer(theirs)

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        return ours

    yield play
    for one in opened:
        one.close()
    for thread in threads:
        thread.join(5)


def answer(theirs: socket.socket, value: Any = None, *, error: str = "") -> None:
    """Read one command and answer it."""
    number = json.loads(theirs.makefile("rb").readline())["id"]
    said = {"error": {"class": "GenericError", "desc": error}} if error else {"return": value}
    theirs.sendall(json.dumps({"id": number, **said}).encode() + b"\r\n")


def test_a_conversation(against: Callable[[Peer], socket.socket]) -> None:
    def peer(theirs: socket.socket) -> None:
        theirs.sendall(GREETING)
        answer(theirs, {})
        theirs.sendall(b'{"event": "RESUME", "timestamp": {}}\n{"id": 0, "return": "too late"}\n')
        answer(theirs, {"status": "running"})
        answer(theirs, error="no such thing")

    with Qmp(against(peer), timeout_s=5) as qmp:
        assert qmp.version == "7.2.22"
        assert qmp.execute("query-status") == {"status": "running"}
        assert [event.name for event in qmp.events] == ["RESUME"]
        with pytest.raises(GuestError, match="no such thing"):
            qmp.execute("nonsense")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", Unavailable),
        (b"garbage\n", GuestError),
        (b'{"return": 1}\n', GuestError),
        (GREETING + b'{"id": 1, "error": {}}\n', GuestError),
        (b"x" * (LINE_LIMIT_BYTES + 1), GuestError),
        (b'{"event": "X"}\n' * 10_000, Unavailable),
    ],
)
def test_a_peer_that_ends_or_talks_rubbish(
    against: Callable[[Peer], socket.socket], sent: bytes, error: type[Error]
) -> None:
    def peer(theirs: socket.socket) -> None:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        while theirs.recv(65536):
            pass

    with pytest.raises(error):
        Qmp(against(peer), timeout_s=5)


@pytest.mark.parametrize("sent", [b"", GREETING, GREETING[:20]])
def test_a_silent_peer_is_waited_for_until_the_deadline(against: Callable[[Peer], socket.socket], sent: bytes) -> None:
    with pytest.raises(Unavailable):
        Qmp(against(lambda theirs: theirs.sendall(sent)), timeout_s=0.05)


def test_a_peer_that_never_stops_talking_is_left_at_the_deadline(against: Callable[[Peer], socket.socket]) -> None:
    def peer(theirs: socket.socket) -> None:
        theirs.sendall(GREETING)
        while True:
            theirs.sendall(b'{"event": "X"}\n' * 100)

    with pytest.raises(Unavailable):
        Qmp(against(peer), timeout_s=0.1)


def test_a_descriptor_goes_along_with_its_command() -> None:
    ours, theirs = socket.socketpair()
    got: list[int] = []

    def answer() -> None:
        theirs.sendall(GREETING)
        theirs.recv(4096)
        theirs.sendall(b'{"return": {}, "id": 1}\r\n')
        data = b""
        while b"\n" not in data:
            part, descriptors, _, _ = socket.recv_fds(theirs, 4096, 4)
            data += part
            got.extend(descriptors)
        assert json.loads(data)["arguments"] == {"fdname": "migration"}
        theirs.sendall(b'{"return": {}, "id": 2}\r\n')

    thread = threading.Thread(target=answer)
    thread.start()
    read, write = os.pipe()
    with theirs, Qmp(ours, timeout_s=5.0) as qmp:
        qmp.execute("getfd", {"fdname": "migration"}, descriptors=(write,))
        thread.join()
    assert len(got) == 1
    os.write(got[0], b"x")
    assert os.read(read, 1) == b"x"
    for descriptor in (read, write, *got):
        os.close(descriptor)
