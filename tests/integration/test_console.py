"""Consoles through real sockets: CLI on a pty ↔ stream process ↔ mutual TLS ↔ a door that echoes."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import ssl
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.fake_api import TOKEN, running
from ucloud.config import ApiSection, Config, HostSection, LogSection, StoreSection, render_config
from ucloud.console.tunnel import Tunnel, open_tunnel
from ucloud.errors import Conflict, Error, NotFound, Unavailable
from ucloud.local.certificates import ensure_authority, ensure_certificate
from ucloud.model.meta import Meta
from ucloud.model.placement import Decision, Placement
from ucloud.model.seen import SeenHost
from ucloud.model.vm import Vm, VmSpec
from ucloud.store import keys
from ucloud.store.api import Put, Txn
from ucloud.store.codec import encode
from ucloud.store.memory import MemoryStore
from ucloud.stream.process import find_door, make_server, make_stream_server
from ucloud.system.door import door_context

_HELLO = b"hello from the guest\r\n"


class Door:
    """An agent's door with one console: says hello, echoes in upper case, ends the stream at "quit"."""

    def __init__(self, directory: Path) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "host.pem", directory / "host.key")
        context.load_verify_locations(directory / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        self.answer = (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ucloud-console\r\n\r\n" + _HELLO
        )
        self.requests: list[bytes] = []
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._server.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(plain,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError), plain, self._context.wrap_socket(plain, server_side=True) as sock:
            self.requests.append(sock.recv(4096))
            sock.sendall(self.answer)
            while (data := sock.recv(65536)) and b"quit" not in data:
                sock.sendall(data.upper())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    ensure_authority(directory)
    for name in ("host", "store"):
        ensure_certificate(directory, name)
    return directory


@pytest.fixture
def tls(certificates: Path) -> ssl.SSLContext:
    return door_context(certificates / "ca.pem", certificates / "store.pem", certificates / "store.key")


@pytest.fixture
def door(certificates: Path) -> Iterator[Door]:
    door = Door(certificates)
    yield door
    door.close()


Streams = Callable[..., str]


@pytest.fixture
def streams(door: Door, tls: ssl.SSLContext) -> Iterator[Streams]:
    """Starts stream servers; gives their URLs."""
    servers = []

    def open_console(vm_id: str) -> Tunnel:
        if vm_id == "vm-nowhere":
            raise Conflict("failed to open the console: vm vm-nowhere is on no host")
        return open_tunnel(door.url, f"/vms/{vm_id}/console", tls)

    def start(limit: int = 10) -> str:
        sock = socket.create_server(("127.0.0.1", 0))
        server = make_stream_server(sock, TOKEN.encode(), limit, open_console)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"ws://127.0.0.1:{sock.getsockname()[1]}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join(10)


def _connect(url: str, vm_id: str = "vm-1", **headers: str) -> ClientConnection:
    sent = {"Authorization": f"Bearer {TOKEN}", **headers}
    return connect(f"{url}/v1/vms/{vm_id}/console", additional_headers=sent, proxy=None, close_timeout=2)


def _until(read: Callable[[], bytes], wanted: bytes) -> bytes:
    got = b""
    while wanted not in got:
        chunk = read()
        assert chunk, f"ended after {got!r}"
        got += chunk
    return got


def test_a_tunnel_carries_bytes_both_ways(door: Door, tls: ssl.SSLContext) -> None:
    tunnel = open_tunnel(door.url, "/vms/vm-1/console", tls)

    def read() -> bytes:
        while True:
            if not tunnel.has_pending():
                assert select.select([tunnel], [], [], 10)[0]
            if (data := tunnel.receive()) is not None:
                return data

    assert _until(read, _HELLO) == _HELLO
    tunnel.send(b"x" * 200_000)
    assert len(_until(read, b"X" * 10)) > 0
    tunnel.close()
    assert door.requests[0].startswith(b"GET /vms/vm-1/console HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("answer", "cls", "text"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno such\n", NotFound, "console: no such$"),
        (b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n", Conflict, "answered 409"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n", Unavailable, "another protocol"),
        (b"SSH-2.0-x\r\n\r\n\r\n", Unavailable, "does not speak HTTP"),
    ],
)
def test_doors_that_refuse(door: Door, tls: ssl.SSLContext, answer: bytes, cls: type[Error], text: str) -> None:
    door.answer = answer
    with pytest.raises(cls, match=text):
        open_tunnel(door.url, "/vms/vm-1/console", tls)


def test_a_door_of_another_cloud_is_not_trusted(door: Door, certificates: Path, tmp_path: Path) -> None:
    ensure_authority(tmp_path)
    other = door_context(tmp_path / "ca.pem", certificates / "store.pem", certificates / "store.key")
    with pytest.raises(Unavailable, match="certificate"):
        open_tunnel(door.url, "/", other)


def test_nobody_behind_the_door(tls: ssl.SSLContext) -> None:
    with pytest.raises(Unavailable, match="Connection refused"):
        open_tunnel("https://127.0.0.1:1", "/", tls)


def test_a_console_through_the_stream_process(streams: Streams) -> None:
    with _connect(streams()) as console:
        assert _until(lambda: console.recv(timeout=10, decode=False), _HELLO) == _HELLO
        for text in (b"abc", b"def"):
            console.send(text)
            assert _until(lambda: console.recv(timeout=10, decode=False), text.upper())
        console.send(b"quit")
        with pytest.raises(ConnectionClosed):
            console.recv(timeout=10)
        assert (console.close_code, console.close_reason) == (1000, "the console ended")


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Authorization": "Bearer wrong"}, "vm-1", 401),
        ({"Authorization": ""}, "vm-1", 401),
        ({"Origin": "http://127.0.0.1"}, "vm-1", 403),
        ({}, "a/b", 404),
    ],
)
def test_refused_before_the_upgrade(
    streams: Streams, door: Door, headers: dict[str, str], path: str, status: int
) -> None:
    with pytest.raises(InvalidStatus) as caught, _connect(streams(), path, **headers):
        pass
    assert caught.value.response.status_code == status
    assert caught.value.response.headers["Content-Type"] == "application/problem+json"
    assert door.requests == []


def _close_of(url: str, vm_id: str = "vm-1") -> tuple[int | None, str | None]:
    with _connect(url, vm_id) as connection:
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=10)
        return connection.close_code, connection.close_reason


def test_refused_after_the_upgrade(streams: Streams, door: Door) -> None:
    url = streams(limit=1)
    assert _close_of(url, "vm-nowhere") == (4409, "failed to open the console: vm vm-nowhere is on no host")
    door.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    assert _close_of(url)[0] == 4404
    door.answer = b"garbage\r\n\r\n"
    assert _close_of(url)[0] == 4503


def test_the_number_of_consoles_is_limited(streams: Streams) -> None:
    url = streams(limit=1)
    with _connect(url) as first:
        first.recv(timeout=10)
        assert _close_of(url) == (4503, "all 1 consoles are in use")
    deadline_s = time.monotonic() + 10
    while True:
        with _connect(url) as again, contextlib.suppress(ConnectionClosed):
            assert again.recv(timeout=10) == _HELLO
            return
        assert time.monotonic() < deadline_s


def test_a_client_that_leaves_frees_the_door(streams: Streams, door: Door) -> None:
    with _connect(streams()) as console:
        console.recv(timeout=10)
    door.close()


def _store_with(*, host_id: str, door: str) -> MemoryStore:
    store = MemoryStore()
    meta = Meta("vm-1", "web1", "default", "2026-01-31T12:00:00.000Z")
    vm = Vm(meta, VmSpec("image-1", 1, 256, 1, ()))
    placement = Placement("vm-1", host_id, 1, 1, 1, 256, 1, meta.created_at, Decision(1, 1))
    report = SeenHost("host-a", meta.created_at, "0", "Linux", "x86_64", "tcg", "7.2", 2, 1024, 1024, 1024, door)
    writes = [Put(keys.spec("vm", "vm-1"), encode(vm)), Put(keys.placement("vm-1"), encode(placement))]
    writes += [Put(keys.seen("host-a", "host", "self"), encode(report))] if door else []
    assert store.commit(Txn((), tuple(writes))).ok
    return store


def test_the_door_is_found_in_the_store() -> None:
    assert find_door(_store_with(host_id="host-a", door="https://h:1"), "vm-1") == "https://h:1"
    with pytest.raises(NotFound):
        find_door(MemoryStore(), "vm-1")
    with pytest.raises(Conflict, match="on no host"):
        find_door(_store_with(host_id="", door="https://h:1"), "vm-1")
    with pytest.raises(Unavailable, match="not reported"):
        find_door(_store_with(host_id="host-a", door=""), "vm-1")


def test_the_process_on_its_settings(certificates: Path, door: Door, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    cert, key = certificates / "store.pem", certificates / "store.key"
    config = Config(
        api=ApiSection(stream_listen="127.0.0.1:0", token_file=tmp_path / "token"),
        store=StoreSection(ca_file=certificates / "ca.pem", cert_file=cert, key_file=key),
    )
    with make_server(config, _store_with(host_id="host-a", door=door.url)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        with _connect(url) as console:
            assert console.recv(timeout=10) == _HELLO
        assert _close_of(url, "vm-2")[0] == 4404
    thread.join(10)


def test_the_process_ends_at_sigterm(certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = Config(
        api=ApiSection(stream_listen=f"127.0.0.1:{port}", token_file=tmp_path / "token"),
        store=StoreSection(
            endpoints=("https://127.0.0.1:1",),
            ca_file=certificates / "ca.pem",
            cert_file=certificates / "store.pem",
            key_file=certificates / "store.key",
            timeout_s=0.2,
        ),
        host=HostSection(run_directory=tmp_path),
        log=LogSection(directory=tmp_path),
    )
    (tmp_path / "ucloud.toml").write_text(render_config(config))
    process = subprocess.Popen(_command("stream", "--config", str(tmp_path / "ucloud.toml")))
    try:
        url = f"ws://127.0.0.1:{port}"
        _wait_for_port(port)
        assert _close_of(url)[0] == 4503
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def _wait_for_port(port: int) -> None:
    deadline_s = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)


@pytest.fixture
def cloud(streams: Streams, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment for a CLI whose fake API leads to the stream process."""
    with running(tmp_path) as (api, _):
        api.stream_url = streams()
        api.add("vm", "vm-aaaaaaaaaaaa", "web1")
        yield {**os.environ, "HOME": str(tmp_path), "UCLOUD_PROFILE": str(tmp_path / "client.toml"), "TERM": "xterm"}


def _command(*words: str) -> list[str]:
    return [sys.executable, "-c", "from ucloud.main import main; raise SystemExit(main())", *words]


def test_the_cli_on_a_pipe(cloud: dict[str, str]) -> None:
    words = _command("vm", "console", "web1", "--linger", "1s")
    done = subprocess.run(words, input=b"uptime\n", capture_output=True, env=cloud, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, _HELLO + b"UPTIME\n")
    assert b"connected to the console of web1" in done.stderr


def test_the_cli_of_a_console_that_is_refused(cloud: dict[str, str], door: Door) -> None:
    door.answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    words = _command("vm", "console", "web1")
    done = subprocess.run(words, input=b"", capture_output=True, env=cloud, timeout=60, check=False)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith(b"ucloud: failed to keep the console: failed to open the console")


@pytest.mark.parametrize("how", ["escape", "signal", "end"])
def test_the_cli_on_a_terminal_restores_it(cloud: dict[str, str], how: str) -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(_command("vm", "console", "web1"), stdin=slave, stdout=slave, stderr=slave, env=cloud)
    try:

        def read() -> bytes:
            assert select.select([master], [], [], 30)[0]
            return os.read(master, 65536)

        _until(read, b"hello from the guest")
        assert termios.tcgetattr(slave) != before
        os.write(master, b"ab\x03c")
        _until(read, b"AB\x03C")
        if how == "escape":
            os.write(master, b"\x1d")
        elif how == "end":
            os.write(master, b"quit")
        else:
            process.send_signal(signal.SIGTERM)
        assert process.wait(30) == (143 if how == "signal" else 0)
        assert termios.tcgetattr(slave) == before
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)
