"""Images through the API: uploads and URLs that become images, and those that become an error and nothing."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.conftest import require
from tests.integration.api_server import TOKEN as API_TOKEN
from tests.integration.api_server import running
from tests.unit.api.service import Service
from ucloud.system.run import run

OCTETS = "application/octet-stream"


@pytest.fixture(autouse=True)
def _qemu() -> None:
    require("qemu")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, download_allowed_hosts=("127.0.0.1",))
    yield service
    service.close()


@pytest.fixture
def disk(tmp_path: Path) -> bytes:
    """A qcow2 of 100 MiB."""
    path = tmp_path / "disk.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", path, "100M"])
    return path.read_bytes()


def upload(service: Service, name: str, data: bytes, query: str = "", **options: Any) -> Any:
    options.setdefault("content_type", OCTETS)
    return service.ask("POST", f"/v1/images/upload?name={name}{query}", data=data, **options)


def leftovers(service: Service) -> list[str]:
    """Everything in the pool."""
    return [str(path) for path in service.config.host.pool_directory.rglob("*") if path.is_file()]


def test_an_upload_becomes_an_image(service: Service, disk: bytes) -> None:
    digest = hashlib.sha256(disk).hexdigest()
    response = upload(service, "tiny", disk, f"&sha256={digest}&user=debian")
    image = response.json
    assert (response.status_code, response.headers["Location"]) == (201, f"/v1/images/{image['id']}")
    assert image["spec"] == {
        "digest": digest,
        "format": "qcow2",
        "size_bytes": len(disk),
        "virtual_size_bytes": 100 * 2**20,
        "origin_host_id": service.config.host.id,
        "source": "upload",
        "user": "debian",
    }
    assert len(leftovers(service)) == 1
    changed = service.patch(f"/v1/images/{image['id']}", {"user": "root", "name": "small"})
    assert (changed["name"], changed["spec"]["user"], changed["generation"]) == ("small", "root", 2)


def test_a_taken_name_is_told_before_the_body_is_read(service: Service, disk: bytes) -> None:
    upload(service, "tiny", disk)
    response = upload(service, "tiny", b"not even looked at")
    assert (response.status_code, response.json["code"]) == (409, "name_taken")


def test_an_upload_with_the_same_idempotency_key(service: Service, disk: bytes) -> None:
    headers = {"Idempotency-Key": "k"}
    first = upload(service, "tiny", disk, headers=headers)
    again = upload(service, "tiny", b"", headers=headers)
    assert (again.status_code, again.json["id"]) == (201, first.json["id"])
    assert again.headers["Idempotent-Replay"] == "true"


def test_what_is_no_good_image_leaves_nothing(service: Service, disk: bytes, tmp_path: Path) -> None:
    backed = tmp_path / "backed.qcow2"
    base = tmp_path / "base.qcow2"
    base.write_bytes(disk)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", backed])
    before = service.dump()
    cases = [
        (b"", ""),
        (b"just some text" * 1000, ""),
        (disk[: len(disk) // 2], ""),
        (disk, "&sha256=" + "0" * 64),
        (backed.read_bytes(), ""),
    ]
    codes = []
    for data, query in cases:
        response = upload(service, "tiny", data, query)
        assert response.status_code == 409, response.text
        codes.append(response.json["code"])
        assert leftovers(service) == []
    assert codes[3] == "checksum_mismatch"
    assert all(codes)
    assert service.dump() == before


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/v1/images/upload?name=a", {"content_type": "application/json"}, 415),
        ("/v1/images/upload?name=a%0Ab", {}, 400),
        ("/v1/images/upload", {}, 400),
        ("/v1/images/upload?name=a&sha256=abc", {}, 400),
        ("/v1/images/upload?name=a&user=Root", {}, 400),
        ("/v1/images/upload?name=a&dry_run=7", {}, 400),
    ],
)
def test_bad_uploads(service: Service, path: str, options: dict[str, Any], status: int) -> None:
    service.problem("POST", path, status, data=b"x", **{"content_type": OCTETS, **options})


def test_an_upload_that_announces_too_much(service: Service) -> None:
    announced = {"CONTENT_LENGTH": str(2 * 2**30)}
    path = "/v1/images/upload?name=a"
    problem = service.problem("POST", path, 413, content_type=OCTETS, environ_overrides=announced)
    assert problem["code"] == "image_too_large"


class _Files(http.server.BaseHTTPRequestHandler):
    contents: ClassVar[dict[str, bytes]] = {}

    def do_GET(self) -> None:
        data = self.contents.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def files(disk: bytes) -> Iterator[str]:
    _Files.contents = {"/tiny.qcow2": disk, "/text": b"text"}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def load(service: Service, body: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    response = service.ask("POST", "/v1/images", json=body, **options)
    assert (response.status_code, response.mimetype) == (200, "application/x-ndjson"), response.text
    return [json.loads(line) for line in response.text.splitlines()]


def test_a_url_becomes_an_image(service: Service, files: str, disk: bytes) -> None:
    body = {
        "name": "tiny",
        "url": f"{files}/tiny.qcow2",
        "sha256": hashlib.sha256(disk).hexdigest(),
        "labels": {"a": "b"},
    }
    lines = load(service, body, headers={"Idempotency-Key": "k"})
    image = lines[-1]["image"]
    assert (image["spec"]["source"], image["labels"]) == (f"{files}/tiny.qcow2", {"a": "b"})
    assert service.get("/v1/images/" + image["id"]) == image
    assert load(service, body, headers={"Idempotency-Key": "k"})[-1]["image"]["id"] == image["id"]
    assert service.problem("POST", "/v1/images", 409, json=body)["code"] == "name_taken"


@pytest.mark.parametrize(
    ("change", "code"), [({"url": "{files}/text"}, ""), ({"sha256": "0" * 64}, "checksum_mismatch")]
)
def test_bad_images_end_with_a_problem_and_nothing(
    service: Service, files: str, change: dict[str, str], code: str
) -> None:
    before = service.dump()
    body = {"name": "tiny", "url": f"{files}/tiny.qcow2", **{k: v.format(files=files) for k, v in change.items()}}
    problem = load(service, body)[-1]["problem"]
    assert problem["code"] == code or not code
    assert problem["code"] != "internal"
    assert service.dump() == before
    assert leftovers(service) == []


@pytest.mark.parametrize(
    ("url", "status", "code"),
    [
        ("{files}/nothing?key=secret", 409, "download_status"),
        ("http://localhost:1/x?key=secret", 403, "address_forbidden"),
        ("http://[fe80::1]/x", 403, "address_forbidden"),
        ("http://user:secret@127.0.0.1/x", 400, "invalid_input"),
        ("http://name.invalid/x?key=secret", 409, "download_name"),
        ("http://127.0.0.1:99999/x?key=secret", 400, "invalid_input"),
    ],
)
def test_what_is_wrong_before_the_first_byte_is_a_problem(
    service: Service, files: str, url: str, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = service.dump()
    with caplog.at_level("DEBUG"):
        problem = service.problem("POST", "/v1/images", status, json={"name": "a", "url": url.format(files=files)})
    assert problem["code"] == code
    assert "secret" not in str(problem) + caplog.text
    assert service.dump() == before


def test_the_query_of_a_url_is_a_secret(
    service: Service, files: str, disk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Presigned URLs have their key there."""
    _Files.contents["/tiny.qcow2?key=secret"] = disk
    with caplog.at_level("DEBUG"):
        lines = load(service, {"name": "tiny", "url": f"{files}/tiny.qcow2?key=secret"})
    assert lines[-1]["image"]["spec"]["source"] == f"{files}/tiny.qcow2"
    assert "secret" not in str(lines) + str(service.dump()) + caplog.text


def test_dry_runs(service: Service, files: str, disk: bytes) -> None:
    before = service.dump()
    body = {"name": "tiny", "url": f"{files}/tiny.qcow2?x=y", "user": "debian"}
    told = service.post("/v1/images?dry_run=true", body, status=200)
    assert (told["dry_run"], told["would"], told["object"]["name"]) == (True, "create", "tiny")
    assert (told["object"]["spec"]["source"], told["object"]["spec"]["user"]) == (f"{files}/tiny.qcow2", "debian")
    told = upload(service, "tiny", b"", "&dry_run=true").json
    assert (told["would"], told["object"]["spec"]["source"]) == ("create", "upload")
    assert service.dump() == before
    upload(service, "tiny", disk)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("/v1/images?dry_run=true", {"json": body}),
        ("/v1/images/upload?name=tiny&dry_run=true", {"content_type": OCTETS}),
    ]
    for path, options in cases:
        assert service.problem("POST", path, 409, **options)["code"] == "name_taken"
    service.problem("POST", "/v1/images?dry_run=true", 400, json={"name": "x", "url": "http://a:b@c/"})


def test_only_so_many_images_come_in_at_once(service: Service, files: str, disk: bytes) -> None:
    """Each holds a thread of the API."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        silent = f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        held = []

        def answer() -> None:
            for _ in range(4):
                client, _ = listening.accept()
                client.recv(4096)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
                held.append(client)

        server = threading.Thread(target=answer)
        server.start()
        running = [
            service.ask("POST", "/v1/images", json={"name": f"n{index}", "url": silent}, buffered=False)
            for index in range(4)
        ]
        server.join()
        for problem in (
            service.problem("POST", "/v1/images", 503, json={"name": "a", "url": silent}),
            service.problem("POST", "/v1/images/upload?name=a", 503, data=disk, content_type=OCTETS),
        ):
            assert problem["code"] == "busy"
            assert problem["hint"]
        for response in running:
            response.close()
        for client in held:
            client.close()
    until_s = time.monotonic() + 10
    while upload(service, "a", disk).status_code == 503:
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x", "http://", "http://a b/", "x", 7])
def test_what_is_no_url(service: Service, url: Any) -> None:
    assert service.problem("POST", "/v1/images", 400, json={"name": "a", "url": url})["field"] == "url"


@pytest.mark.parametrize("framing", ["Content-Length: 2097152", "Transfer-Encoding: chunked"])
def test_a_client_that_goes_away_leaves_nothing(tmp_path: Path, framing: str) -> None:
    """Half of a raw disk, which is a disk as well: it must not become an image."""
    half = bytes(510) + b"\x55\xaa" + bytes(1024 * 1024 - 512)
    if "chunked" in framing:
        half = b"%x\r\n" % len(half) + half + b"\r\n"
    head = f"POST /v1/images/upload?name=half HTTP/1.1\r\nHost: x\r\n{framing}\r\nContent-Type: {OCTETS}\r\n"
    with running(tmp_path, Path(__file__).with_name("memory_api.py")) as api:
        with socket.create_connection(("127.0.0.1", api.port)) as connection:
            connection.sendall(f"{head}Authorization: Bearer {API_TOKEN}\r\n\r\n".encode() + half)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        assert answer == b"" or b" 409 " in answer.splitlines()[0], answer
        assert api.ask("GET", "/v1/images")[1]["items"] == []
        assert [path for path in (tmp_path / "pool").rglob("*") if path.is_file()] == []


def test_a_client_that_leaves_ends_the_import(tmp_path: Path) -> None:
    """Although the server sends nothing, so that nothing new is to be told."""
    with (
        running(tmp_path, Path(__file__).with_name("memory_api.py")) as api,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        body = json.dumps({"name": "a", "url": f"http://127.0.0.1:{server.getsockname()[1]}/x"})
        head = f"POST /v1/images HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        with socket.create_connection(("127.0.0.1", api.port)) as connection:
            connection.sendall(f"{head}\r\nAuthorization: Bearer {API_TOKEN}\r\n\r\n{body}".encode())
            source, _ = server.accept()
            source.recv(4096)
            source.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nQFI")
            lines = connection.makefile("rb")
            while b"progress" not in lines.readline():
                continue
            lines.close()
        with source:
            source.settimeout(10)
            assert source.recv(1) == b""
        until_s = time.monotonic() + 10
        while [path for path in (tmp_path / "pool").rglob("*") if path.is_file()]:
            assert time.monotonic() < until_s
            time.sleep(0.05)
        assert api.ask("GET", "/v1/images")[1]["items"] == []
