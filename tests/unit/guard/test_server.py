"""The guard's socket against clients of every kind."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.contract.guard_process import wait_for
from tests.unit.clock import ManualClock
from ucloud.errors import Conflict, Error, GuestError, InvalidInput, NotFound, Unavailable
from ucloud.guard.server import CONNECTIONS_LIMIT, Server
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.guard_protocol import FDS_LIMIT, REQUEST_LIMIT_BYTES, Named
from ucloud.system.clock import SystemClock
from ucloud.system.unix_socket import connect_unix

ERRORS: dict[str, Exception] = {
    "conflict": Conflict("runs already", code="runs", hint="wait"),
    "crash": ZeroDivisionError("oh"),
    "disk": OSError(28, "No space left on device"),
}


def handle(op: str, plain: Mapping[str, Any], descriptors: Sequence[int]) -> Any:
    if op in ERRORS:
        raise ERRORS[op]
    if op == "read":
        return [os.read(one, 100).decode() for one in descriptors]
    if op == "kill":
        raise NotFound("failed to find it")
    return {"op": op, "fields": len(plain)}


class Late:
    """A server that one turns by hand, and what it was asked to do."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.done: list[str] = []
        self.server = Server(directory / "g.sock", self._handle, self.clock)
        self.asker = connect_unix(directory / "g.sock", 5.0)
        self.server.serve((), 0)

    def _handle(self, op: str, plain: Mapping[str, Any], descriptors: Sequence[int]) -> None:
        self.done.append(op)

    def close(self) -> None:
        self.asker.close()
        self.server.close()


@pytest.fixture
def late(tmp_path: Path) -> Iterator[Late]:
    made = Late(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("op", ["start", "permit", "kill"])
def test_what_lets_a_vm_run_is_not_done_for_somebody_who_has_gone(late: Late, op: str) -> None:
    late.asker.sendall(json.dumps({"op": op}).encode() + b"\n")
    late.asker.close()
    late.server.serve((), 0)
    assert late.done == (["kill"] if op == "kill" else [])


@pytest.mark.parametrize("op", ["start", "permit"])
def test_what_lets_a_vm_run_is_done_for_somebody_who_waits(late: Late, op: str) -> None:
    late.asker.sendall(json.dumps({"op": op}).encode() + b"\n")
    late.server.serve((), 0)
    assert late.done == [op]


def test_a_request_that_waited_too_long_is_dropped_and_not_served(late: Late) -> None:
    late.asker.sendall(b'{"op":"start"}\n')
    late.clock.sleep(6)
    late.server.serve((), 0)
    assert late.done == []
    with pytest.raises(ConnectionResetError):
        late.asker.recv(1)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / ("long" * 30) / "guard.sock"
    place.parent.mkdir()
    server = Server(place, handle, SystemClock())
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            server.serve((), 0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    yield place
    ended.set()
    thread.join()
    server.close()


def ask(path: Path, data: bytes, descriptors: Sequence[int] = ()) -> dict[str, Any]:
    """Send bytes, read the answer; {} if the server hung up without one."""
    with connect_unix(path, 5.0) as connection:
        try:
            socket.send_fds(connection, [data[:1]], list(descriptors))
            if data[1:]:  # else it may have answered and hung up already
                connection.sendall(data[1:])
            line = connection.makefile("rb").readline()
        except ConnectionError:
            return {}
        answer: dict[str, Any] = json.loads(line) if line else {}
        return answer


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_it_is_for_its_owner_only(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_request_and_its_answer(path: Path) -> None:
    assert ask(path, b'{"op":"x","a":1}\n') == {"ok": {"op": "x", "fields": 2}}


def test_descriptors_arrive_in_order_and_are_closed(path: Path) -> None:
    ends = []
    for word in (b"one", b"two"):
        reading, writing = os.pipe()
        os.write(writing, word)
        os.close(writing)
        ends.append(reading)
    before = count_descriptors()
    assert ask(path, b'{"op":"read"}\n', ends) == {"ok": ["one", "two"]}
    assert ask(path, b"broken\n", ends)["error"]
    assert ask(path, b'{"op":"crash"}\n', ends)["error"]
    wait_for(lambda: count_descriptors() == before)  # the server closes after it answered
    for reading in ends:
        os.close(reading)


@pytest.mark.parametrize(
    ("op", "cls", "words"),
    [("conflict", Conflict, "runs already"), ("crash", GuestError, "oh"), ("disk", GuestError, "No space")],
)
def test_errors_come_back_as_what_they_were(path: Path, op: str, cls: type[Error], words: str) -> None:
    with pytest.raises(cls, match=words) as caught:
        GuardClient(path)._ask(json.dumps({"op": op}).encode() + b"\n")
    if op == "conflict":
        assert (caught.value.code, caught.value.hint) == ("runs", "wait")


def test_a_named_error(path: Path) -> None:
    with pytest.raises(NotFound):
        GuardClient(path).kill(Named("vm-a", 1, 1))


@pytest.mark.parametrize("data", [b"\n", b"{\n", b"[]\n", b'{"op":3}\n', b"\xff\xff\n", b"[" * 5000 + b"\n"])
def test_broken_requests_get_an_error(path: Path, data: bytes) -> None:
    assert ask(path, data)["error"]["class"] == InvalidInput.code
    assert ask(path, b'{"op":"x"}\n')["ok"]


def test_an_endless_request_is_hung_up_on(path: Path) -> None:
    assert ask(path, b"x" * (REQUEST_LIMIT_BYTES + 70_000)) == {}
    assert ask(path, b'{"op":"x"}\n')["ok"]


def test_too_many_descriptors_are_refused_and_closed(path: Path) -> None:
    before = count_descriptors()
    assert ask(path, b'{"op":"x"}\n', [0] * (FDS_LIMIT + 20)) == {}
    assert ask(path, b'{"op":"x"}\n')["ok"]
    wait_for(lambda: count_descriptors() == before)  # the server closes after it answered


def test_silent_connections_do_not_hold_up_others(path: Path) -> None:
    silent = [connect_unix(path, 5.0) for _ in range(CONNECTIONS_LIMIT - 10)]
    assert ask(path, b'{"op":"x"}\n')["ok"]
    for one in silent:
        one.close()


def test_half_a_request_then_nothing(path: Path) -> None:
    with connect_unix(path, 5.0) as connection:
        connection.sendall(b'{"op":')
    assert ask(path, b'{"op":"x"}\n')["ok"]


def in_parallel(count: int, work: Callable[[], Any]) -> list[Any]:
    done: list[Any] = []
    threads = [threading.Thread(target=lambda: done.append(work())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


def test_fifty_at_once(path: Path) -> None:
    assert in_parallel(50, lambda: ask(path, b'{"op":"x"}\n')) == [{"ok": {"op": "x", "fields": 1}}] * 50


def test_no_guard_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        GuardClient(tmp_path / "none.sock").hello()
