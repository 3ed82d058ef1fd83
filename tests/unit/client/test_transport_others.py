"""Several APIs of one cloud: the next one is asked when one cannot be reached, and stays the first choice."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ucloud.client.profile import Profile, load_profile, render_profile
from ucloud.client.transport import Request, Transport
from ucloud.errors import InvalidInput, Unavailable


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def _api() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _nobody() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def _profile(directory: Path, *urls: str) -> Profile:
    (directory / "token").write_text("secret\n")
    return Profile(urls[0], directory / "token", others=urls[1:])


def test_another_api_is_asked_at_once(tmp_path: Path) -> None:
    with _api() as url:
        transport = Transport(_profile(tmp_path, _nobody(), url), patience_s=0.0)
        for _ in range(2):
            assert transport.send(Request("GET", "/version")).status == 200
        transport.close()


def test_what_may_have_had_its_effect_is_not_sent_again(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, _api() as url:
        first = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        transport = Transport(_profile(tmp_path, first, url), timeout_s=0.2, patience_s=0.0)
        with pytest.raises(Unavailable):
            transport.send(Request("POST", "/vms", body=b"{}"))
        assert transport.send(Request("GET", "/version")).status == 200
        transport.close()


def test_all_were_asked_before_it_fails(tmp_path: Path) -> None:
    transport = Transport(_profile(tmp_path, _nobody(), _nobody()), patience_s=0.0)
    with pytest.raises(Unavailable):
        transport.send(Request("GET", "/version"))
    transport.close()


def test_a_profile_with_several_apis_survives_its_file(tmp_path: Path) -> None:
    profile = _profile(tmp_path, "http://[fd00::1]:8700/v1", "http://[fd00::2]:8700/v1")
    path = tmp_path / "client.toml"
    path.write_text(render_profile(profile))
    assert load_profile(path) == profile
    path.write_text('url = "http://a/v1"\ntoken_file = "token"\nothers = "http://b/v1"\n')
    with pytest.raises(InvalidInput):
        load_profile(path)
