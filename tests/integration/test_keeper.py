"""``ucloud etcd``: the member ends with its keeper, which says to guards what it knows of it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.guard_keepers import KeptCluster, KeptMember, kept_cluster
from tests.contract.guard_process import is_gone, wait_for
from ucloud.errors import Unavailable
from ucloud.guard.rules import round_is_evidence
from ucloud.local.keeper_door import CONNECTIONS_LIMIT
from ucloud.local.layout import Layout, ensure_cloud
from ucloud.local.processes import running_pid
from ucloud.store.connect import open_store


class Keeper:
    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory)
        self.config = ensure_cloud(self.layout)
        command = [sys.executable, "-m", "ucloud", "etcd", "--config", str(self.layout.config_file)]
        self.process = subprocess.Popen(command)
        self.member = wait_for(self._child)

    def _child(self) -> int:
        assert self.process.poll() is None
        text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        names = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in text}
        return next((pid for pid, name in names.items() if name == "etcd"), 0)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    require("etcd")
    made = Keeper(tmp_path)
    yield made
    made.process.kill()
    made.process.wait()
    wait_for(lambda: is_gone(made.member))


def test_a_killed_keeper_takes_its_member_along(keeper: Keeper) -> None:
    assert running_pid(keeper.layout.run, "etcd") == keeper.process.pid
    keeper.end(signal.SIGKILL)
    wait_for(lambda: is_gone(keeper.member), timeout_s=5)


def test_a_keeper_that_is_told_to_end_stops_its_member_in_order(keeper: Keeper) -> None:
    store = open_store(keeper.config.store)

    def answers() -> bool:
        with contextlib.suppress(Unavailable):
            return store.get("/x") is None
        return False

    wait_for(answers)
    store.close()
    assert keeper.end(signal.SIGTERM) == 0
    assert is_gone(keeper.member)


def test_a_keeper_ends_with_a_member_that_never_came_up_and_says_where_to_look(keeper: Keeper) -> None:
    os.kill(keeper.member, signal.SIGKILL)
    assert keeper.process.wait(20) == 1
    assert "etcd ended with -9" in (keeper.layout.logs / "etcd.log").read_text()


@pytest.fixture
def trio(tmp_path: Path) -> Iterator[KeptCluster]:
    require("etcd")
    with kept_cluster(tmp_path) as cluster:
        yield cluster


def test_keepers_say_whether_their_member_has_a_leader(trio: KeptCluster) -> None:
    published = trio.publish()
    first, *others = trio.members
    for member in others:
        member.hold_file.touch()
    wait_for(lambda: trio.states() == ["no_leader", "stopped", "stopped"])
    answers = {voter.member_id: answer for voter in published.voters if (answer := trio.ask(by_name(trio, voter.name)))}
    assert round_is_evidence(published, answers)

    first.signal_member(signal.SIGSTOP)  # whoever does not answer its keeper says nothing
    assert trio.ask(first) is None
    first.signal_member(signal.SIGCONT)
    wait_for(lambda: trio.states()[0] == "no_leader")

    for member in others:
        member.hold_file.unlink()
    wait_for(lambda: trio.states() == ["leader"] * 3)
    assert trio.publish() == published


def test_a_lone_member_that_comes_back_is_known_by_what_was_remembered(trio: KeptCluster) -> None:
    trio.publish()
    first = trio.members[0]
    before = trio.ask(first)
    for member in trio.members:
        member.kill()
    assert trio.states() == ["", "", ""]
    first.start()  # its client port hangs as long as it is alone
    wait_for(lambda: trio.states()[0] == "no_leader")
    after = trio.ask(first)
    assert before is not None
    assert after is not None
    assert (after.member_id, after.cluster_id) == (before.member_id, before.cluster_id)


def test_a_killed_member_is_stopped_until_it_is_started_again(trio: KeptCluster) -> None:
    wait_for(lambda: all(Path(member.config.etcd.data_directory.parent).glob("keeper-*") for member in trio.members))
    first = trio.members[0]
    killed = first.member_pid()
    first.signal_member(signal.SIGKILL)
    wait_for(lambda: trio.states()[0] == "stopped")
    wait_for(lambda: trio.states()[0] == "leader")
    assert first.member_pid() not in (0, killed)


def test_the_door_is_for_those_with_a_certificate_and_in_a_hurry(trio: KeptCluster) -> None:
    first = trio.members[0]
    address = ("127.0.0.1", int(first.door.rpartition(":")[2]))
    context = ssl.create_default_context(cafile=str(trio.store_section.ca_file))
    with (
        socket.create_connection(address, timeout=5) as plain,
        pytest.raises(OSError),
        context.wrap_socket(plain, server_hostname="127.0.0.1") as nobody,
    ):
        nobody.sendall(b"GET /v1/leader HTTP/1.1\r\n\r\n")
        nobody.recv(1)
    context.load_cert_chain(trio.store_section.cert_file, trio.store_section.key_file)
    for request, words in (
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /v1/leader HTTP/1.1\r\n\r\n", b"400"),
        (b"x" * 5000, b""),
    ):
        with context.wrap_socket(socket.create_connection(address, timeout=5), server_hostname="127.0.0.1") as known:
            known.sendall(request)
            assert words in known.recv(100)
    silent = [socket.create_connection(address, timeout=5) for _ in range(CONNECTIONS_LIMIT + 5)]
    wait_for(lambda: trio.states()[0] == "leader", timeout_s=5)  # the silent ones were hung up on
    for one in silent:
        one.close()


def by_name(trio: KeptCluster, name: str) -> KeptMember:
    return next(member for member in trio.members if member.name == name)


def test_a_stranger_cannot_silence_the_door(trio: KeptCluster) -> None:
    """It comes from another address, and keeps more connections open than the door has room for."""
    first = trio.members[0]
    address = ("127.0.0.1", int(first.door.rpartition(":")[2]))
    silent = [
        socket.create_connection(address, timeout=5, source_address=("127.0.0.2", 0))
        for _ in range(CONNECTIONS_LIMIT + 5)
    ]
    assert trio.states()[0] == "leader"
    for one in silent:
        one.close()
