"""Downloads from real servers on loopback, which only the list of allowed hosts makes reachable."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ucloud.errors import DeadlineExceeded, Error, Forbidden, Unavailable
from ucloud.storage.download import Download, DownloadLimits, open_url, shown_url

_BODY = b"disk" * 50_000


class _Handler(http.server.BaseHTTPRequestHandler):
    """/ok, /redirect/N (N more), /to/HOST:PORT, /short, /missing, /slow."""

    def do_GET(self) -> None:
        _, verb, *rest = self.path.split("/", 2)
        if verb == "ok":
            self._answer(200, _BODY)
        elif verb == "redirect":
            left = int(rest[0])
            self._answer(302, b"", Location=f"/redirect/{left - 1}" if left > 1 else "/ok")
        elif verb == "to":
            self._answer(302, b"", Location=f"http://{rest[0]}/ok")
        elif verb == "file":
            self._answer(302, b"", Location="file:///etc/passwd")
        elif verb == "short":
            self._answer(200, _BODY, Content_Length=str(len(_BODY) + 1))
        elif verb == "slow":
            self.server.released.wait(10)  # type: ignore[attr-defined]
        else:
            self._answer(404, b"no")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.released = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.released.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def get(url: str, *, allowed: str = "127.0.0.1", stall_timeout_s: float = 5) -> Download:
    limits = DownloadLimits(allowed_hosts=frozenset({allowed}), stall_timeout_s=stall_timeout_s, total_timeout_s=20)
    return open_url(url, limits=limits)


@pytest.mark.parametrize("path", ["/ok", "/redirect/5"])
def test_an_allowed_server_is_read(port: int, path: str) -> None:
    with get(f"http://127.0.0.1:{port}{path}") as download:
        assert download.length_bytes == len(_BODY)
        assert download.read() == _BODY


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "0"])
def test_loopback_is_refused_however_it_is_written(port: int, host: str) -> None:
    with pytest.raises((Forbidden, Unavailable)) as caught:
        get(f"http://{host}:{port}/ok", allowed="example.org")
    assert caught.value.code in {"address_forbidden", "download_name"}


def test_an_allowance_can_name_the_port(port: int) -> None:
    get(f"http://127.0.0.1:{port}/ok", allowed=f"127.0.0.1:{port}").close()
    with pytest.raises(Forbidden):
        get(f"http://127.0.0.1:{port}/ok", allowed="127.0.0.1:1")


@pytest.mark.parametrize("target", ["localhost", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "[fe80::1%lo]"])
def test_a_redirect_inwards_is_refused(port: int, target: str) -> None:
    with pytest.raises(Forbidden) as caught:
        get(f"http://127.0.0.1:{port}/to/{target}:{port}")
    assert caught.value.code == "address_forbidden"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/redirect/6", "download_redirects"),
        ("/missing", "download_status"),
        ("/file", "bad_url"),
        ("/short", "download_truncated"),
    ],
)
def test_failures_have_codes(port: int, path: str, code: str) -> None:
    with pytest.raises(Error) as caught, get(f"http://127.0.0.1:{port}{path}") as download:
        download.read()
    assert caught.value.code == code


def test_a_silent_server_does_not_hold_us(port: int) -> None:
    with pytest.raises(DeadlineExceeded):
        get(f"http://127.0.0.1:{port}/slow", stall_timeout_s=0.2)


def test_https_to_a_plain_server_fails_in_tls(port: int) -> None:
    with pytest.raises(Unavailable) as caught:
        get(f"https://127.0.0.1:{port}/ok")
    assert caught.value.code == "download_tls"


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable) as caught:
            get(f"http://127.0.0.1:{taken.getsockname()[1]}/ok")
    assert caught.value.code == "download_connect"


class _Dripping:
    """A server that sends ``head`` at once and then a byte every 50 ms."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        self.left = threading.Event()
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        try:
            client, _ = self._listening.accept()
            with client:
                client.recv(4096)
                client.sendall(self._head)
                while not self._ended.wait(0.05):
                    client.sendall(b"x")
        except OSError:
            self.left.set()

    def close(self) -> None:
        self._ended.set()
        self._listening.close()
        self._thread.join(10)


@pytest.fixture
def dripping() -> Iterator[Callable[[bytes], _Dripping]]:
    servers = []

    def start(head: bytes) -> _Dripping:
        servers.append(_Dripping(head))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: ",
        b"",
    ],
)
def test_bytes_that_drip_do_not_hold_us(dripping: Callable[[bytes], _Dripping], head: bytes) -> None:
    limits = DownloadLimits(frozenset({"127.0.0.1"}), stall_timeout_s=5, open_timeout_s=1, total_timeout_s=1)
    before_s = time.monotonic()
    with pytest.raises(DeadlineExceeded), open_url(dripping(head).url, limits=limits) as download:
        download.read()
    assert time.monotonic() - before_s < 2


def test_what_has_come_is_handed_on_at_once(dripping: Callable[[bytes], _Dripping]) -> None:
    server = dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with get(server.url) as download:
        before_s = time.monotonic()
        assert set(download.read(1024 * 1024)) == set(b"x")
        assert time.monotonic() - before_s < 1


def test_an_aborted_download_ends_at_once(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        clients = []

        def serve() -> None:
            client, _ = listening.accept()
            client.recv(4096)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            clients.append(client)

        thread = threading.Thread(target=serve)
        thread.start()
        with get(url, stall_timeout_s=10) as download:
            thread.join()
            threading.Timer(0.2, download.abort).start()
            before_s = time.monotonic()
            with pytest.raises(Unavailable):
                download.read()
            assert time.monotonic() - before_s < 5
        clients[0].close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.example/b/c.qcow2?X-Signature=secret#part", "https://a.example/b/c.qcow2"),
        ("http://name:secret@a.example:80/b", "http://a.example:80/b"),
        ("https://a.example", "https://a.example"),
    ],
)
def test_urls_are_shown_without_secrets(url: str, shown: str) -> None:
    assert shown_url(url) == shown
