"""A small API server for tests of the client and the CLI: it speaks the contract's JSON from memory.

Not a second implementation: no validation, no scheduling. A test says what a VM goes through with ``story``.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from ucloud.client import Object, Profile, render_profile

TOKEN = "a-token-for-tests"
CREATED_AT = "2026-01-31T12:00:00.000Z"


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    status: int
    body: Any = None
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def problem(status: int, code: str, detail: str, **more: Any) -> Reply:
    body = {"type": f"urn:ucloud:problem:{code}", "title": code, "status": status, "code": code, "detail": detail}
    return Reply(status, {**body, "hint": "", "request_id": "r1", **more}, "application/problem+json")


class FakeApi:
    """``objects`` by noun and id. ``overrides`` answer before anything else: return None to let it pass.

    ``migrations`` are the answers about a VM's migration, one after the other; the last one stays.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Object]] = {}
        self.seen: list[Seen] = []
        self.overrides: list[Callable[[Seen], Reply | None]] = []
        self.story: list[tuple[str, str]] = []
        self.page_limit = 1000
        self.log = b"booting\nlogin: "
        self.stream_url = ""
        self.migrations: list[Object] = []
        self.failover: Object = {}
        self.port = 0

    def add(self, noun: str, object_id: str, name: str, spec: Object | None = None, **more: Any) -> Object:
        status = {"word": "ready", "reason": ""} | more.pop("status", {})
        one = {
            "id": object_id,
            "name": name,
            "project": "default",
            "labels": {},
            "generation": 1,
            "created_at": CREATED_AT,
            "deleted_at": "",
            "delete_protection": False,
            "spec": spec or {},
            "status": status,
            "conditions": [],
            **more,
        }
        self.objects.setdefault(noun, {})[object_id] = one
        return one

    def answer(self, seen: Seen) -> Reply:
        self.seen.append(seen)
        for override in self.overrides:
            if (reply := override(seen)) is not None:
                return reply
        if seen.headers.get("authorization") != f"Bearer {TOKEN}":
            return problem(401, "unauthorized", "failed to know you: a wrong token")
        parts = [unquote(part) for part in seen.path.removeprefix("/v1/").split("/")]
        if seen.path == "/v1/images/upload":
            return self._upload(seen)
        if parts == ["failover"]:
            return Reply(200, self.failover)
        noun = parts[0].removesuffix("s")
        if len(parts) == 1:
            return self._list(noun, seen) if seen.method == "GET" else self._create(noun, seen)
        one = self.objects.get(noun, {}).get(parts[1])
        if one is None:
            return problem(404, "not_found", f"failed to find {noun} {parts[1]}: there is none")
        return self._about_one(noun, one, parts[2:], seen)

    def _about_one(self, noun: str, one: Object, rest: list[str], seen: Seen) -> Reply:
        if rest[:1] == ["actions"]:
            return self._wish(rest[1], one, seen, 202)
        if rest:
            return self._part(rest[0], one, seen)
        if seen.method == "PATCH":
            changes = seen.json()
            one["spec"].update({name: value for name, value in changes.items() if name not in one})
            one.update({name: value for name, value in changes.items() if name in one})
            return self._wish("update", one, seen, 200)
        if seen.method == "DELETE":
            if "dry_run" not in seen.query:
                one["deleted_at"], one["status"]["word"] = CREATED_AT, "deleting"
                self.objects[noun].pop(one["id"])
            return self._wish("delete", one, seen, 202)
        if noun == "vm" and self.story:
            one["status"]["word"], one["status"]["reason"] = self.story.pop(0)
        return Reply(200, one)

    def _part(self, part: str, one: Object, seen: Seen) -> Reply:
        if part == "log":
            return Reply(200, self.log[-int(seen.query["bytes"][0]) :], "text/plain")
        if part == "console":
            return Reply(200, {"url": f"{self.stream_url}/v1/vms/{one['id']}/console"})
        if part == "migration" and not self.migrations:
            return problem(404, "not_found", "failed to show the migration: there is none")
        if part == "migration":
            return Reply(200, self.migrations.pop(0) if len(self.migrations) > 1 else self.migrations[0])
        return Reply(200, one[part])

    def _wish(self, would: str, one: Object, seen: Seen, status: int) -> Reply:
        if "dry_run" in seen.query:
            return Reply(200, {"dry_run": True, "would": would, "object": one})
        return Reply(status, one)

    def _list(self, noun: str, seen: Seen) -> Reply:
        found = list(self.objects.get(noun, {}).values())
        limit = min(int(seen.query.get("limit", ["100"])[0]), self.page_limit)
        for name in ("name", "about", "about_id", "kind"):
            if wanted := seen.query.get(name):
                found = [one for one in found if one.get(name) == wanted[0]]
        for label in seen.query.get("label", []):
            name, _, value = label.partition("=")
            found = [one for one in found if one["labels"].get(name) == value]
        start = int(seen.query.get("page", ["0"])[0])
        if noun == "event":
            return self._list_events(found, seen, limit)
        more = str(start + limit) if len(found) > start + limit else ""
        return Reply(200, {"items": found[start : start + limit], "next_page": more, "revision": 7})

    def _list_events(self, found: list[Object], seen: Seen, limit: int) -> Reply:
        if (after := seen.query.get("after", [""])[0]) == "":
            return Reply(200, {"items": found[-limit:], "next_page": "", "revision": 7})
        behind = [one for one in found if one["id"] > after]
        more = behind[limit - 1]["id"] if len(behind) > limit else ""
        return Reply(200, {"items": behind[:limit], "next_page": more, "revision": 7})

    def _create(self, noun: str, seen: Seen) -> Reply:
        body = seen.json()
        if "url" in body:
            image = self.add("image", "image-aaaaaaaaaaa1", body["name"])
            lines = [
                {"progress": {"bytes": 5, "total": 10}},
                {"progress": {"bytes": 10, "total": 10}},
                {"image": image},
            ]
            return Reply(200, "".join(json.dumps(line) + "\n" for line in lines).encode(), "application/x-ndjson")
        if "dry_run" in seen.query:
            return Reply(200, {"dry_run": True, "would": "create", "object": {"name": body["name"], "spec": body}})
        object_id = f"{noun}-aaaaaaaaaaa{len(self.objects.get(noun, {})) + 1}"
        status = {"word": "scheduling", "reason": "waits for the scheduler"} if noun == "vm" else {}
        return Reply(201, self.add(noun, object_id, body["name"], dict(body), status=status))

    def _upload(self, seen: Seen) -> Reply:
        digest = hashlib.sha256(seen.body).hexdigest()
        if seen.query.get("sha256", [digest])[0] != digest:
            return problem(400, "checksum_mismatch", "failed to import: its SHA-256 is another one")
        spec = {"digest": digest, "size_bytes": len(seen.body), "virtual_size_bytes": 1 << 30, "format": "raw"}
        return Reply(201, self.add("image", "image-aaaaaaaaaaa2", seen.query["name"][0], spec))


@contextmanager
def running(directory: Path) -> Iterator[tuple[FakeApi, Profile]]:
    """A served FakeApi and the profile for it, which is also written to ``directory/client.toml``."""
    api = FakeApi()

    class Handler(_Handler):
        fake = api

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    token_file = directory / "token"
    token_file.write_text(TOKEN + "\n")
    profile = Profile(f"http://127.0.0.1:{api.port}/v1", token_file)
    (directory / "client.toml").write_text(render_profile(profile))
    try:
        yield api, profile
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeApi

    def log_message(self, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.fake.answer(Seen(self.command, re.sub("/$", "", url.path), parse_qs(url.query), headers, body))
        data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        if reply.status == 0:  # the connection dies without an answer
            self.close_connection = True
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815
