"""The API's operations as methods. Objects are the JSON documents as they came, so that nothing gets lost on the way.

Nouns are the singular words: ``vm``, ``network``, ``image``, ``key``, ``host``, ``event``.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO
from urllib.parse import quote

from ucloud.client.problems import problem_error
from ucloud.client.profile import Profile
from ucloud.client.transport import Answer, Object, Query, Request, Transport
from ucloud.client.waiting import (
    BLOCKED,
    GONE,
    PATIENCE_S,
    OnChange,
    Wish,
    wait_migrated,
    wait_until,
    with_drain_word,
)
from ucloud.errors import Conflict, Error, InvalidInput, NotFound

PAGE_LIMIT = 1000
_BLOCKED_S = 15.0
_TRANSFER_SILENCE_S = 300.0
_CHUNK_BYTES = 1 << 18

Filters = Mapping[str, str | Collection[str]]
Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the total, None if that is not known."""


class Client:
    """A connection to one cloud, for one thread. ``patience_s`` is how long a request that fails is tried again."""

    def __init__(self, profile: Profile, *, timeout_s: float = 30.0, patience_s: float = 5.0) -> None:
        self.profile = profile
        self._transport = Transport(profile, timeout_s=timeout_s, patience_s=patience_s)

    def close(self) -> None:
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Objects of any noun

    def get(self, noun: str, object_id: str) -> Object:
        return self._transport.send(Request("GET", _path(noun, object_id))).json()

    def each(self, noun: str, filters: Filters | None = None, *, limit: int = 0) -> Iterator[Object]:
        """All objects of a noun that match, page by page; at most ``limit`` if that is not 0.

        Events continue behind the last one seen: without a filter ``after`` it is the newest that come, in one page.
        """
        left, page = limit or None, ""
        page_name = "after" if noun == "event" else "page"
        while True:
            chosen = {**(filters or {}), **({page_name: page} if page else {})}
            query = [*_query(chosen), ("limit", str(min(left or PAGE_LIMIT, PAGE_LIMIT)))]
            answer = self.get_page(noun, query)
            items = answer["items"] if left is None else answer["items"][:left]
            yield from items
            left = None if left is None else left - len(items)
            page = answer.get("next_page") or ""
            if not page or left == 0:
                return

    def get_page(self, noun: str, query: Query) -> Object:
        return self._transport.send(Request("GET", f"/{noun}s", query=query)).json()

    def find(self, noun: str, reference: str, *, project: str = "") -> Object:
        """The object with this id, else the one with this name. Raises Conflict for a name of several."""
        if noun == "host" or reference.startswith(f"{noun}-"):
            try:
                return self.get(noun, reference)
            except NotFound:
                pass
        filters = {"name": reference, **({"project": project} if project else {})}
        found = list(self.each(noun, filters))
        found = [one for one in found if not one.get("deleted_at")] or found
        if not found:
            raise NotFound(f"failed to find {noun} {reference}: no such id or name", hint=f"see 'ucloud {noun} list'")
        if len(found) > 1:
            ids = ", ".join(one["id"] for one in found)
            raise Conflict(
                f"failed to find {noun} {reference}: the name is ambiguous",
                hint=f"use one of the ids {ids}",
                code="ambiguous_name",
            )
        return found[0]

    def create(self, noun: str, body: Object, *, dry_run: bool = False, idempotency_key: str = "") -> Object:
        return self._post(f"/{noun}s", body, dry_run=dry_run, idempotency_key=idempotency_key).json()

    def update(
        self, noun: str, object_id: str, changes: Object, *, generation: int | None = None, dry_run: bool = False
    ) -> Object:
        """``generation`` makes the API refuse (PreconditionFailed) if somebody else changed the object since."""
        headers = {**_json_headers(), **_if_match(generation)}
        body = json.dumps(changes).encode()
        request = Request("PATCH", _path(noun, object_id), query=_dry(dry_run), body=body, headers=headers)
        return self._transport.send(request).json()

    def delete(
        self, noun: str, object_id: str, *, generation: int | None = None, dry_run: bool = False, dead: bool = False
    ) -> Object:
        """Marks it for deletion; the cloud finishes that (see wait_gone). ``dead``: a host that will never return."""
        query = [*_dry(dry_run), *([("dead", "true")] if dead else [])]
        request = Request("DELETE", _path(noun, object_id), query=query, headers=_if_match(generation))
        answer = self._transport.send(request)
        return answer.json() if answer.body else {}

    def act(
        self,
        object_id: str,
        action: str,
        body: Object | None = None,
        *,
        noun: str = "vm",
        dry_run: bool = False,
        generation: int | None = None,
    ) -> Object:
        """``action`` is start, stop, reboot, migrate or cancel-migration; of a host drain, undrain or confirm-off."""
        path = f"{_path(noun, object_id)}/actions/{action}"
        return self._post(path, body or {}, dry_run=dry_run, headers=_if_match(generation)).json()

    # VMs

    def get_migration(self, vm_id: str) -> Object:
        """The VM's newest migration, whether it goes on or not. Raises NotFound if there was none."""
        return self._transport.send(Request("GET", f"{_path('vm', vm_id)}/migration")).json()

    def get_placement(self, vm_id: str) -> Object:
        return self._transport.send(Request("GET", f"{_path('vm', vm_id)}/placement")).json()

    def read_log(self, vm_id: str, *, limit_bytes: int = 65536) -> bytes:
        """The end of what the guest wrote to its serial port."""
        path = f"{_path('vm', vm_id)}/log"
        return self._transport.send(Request("GET", path, query=[("bytes", str(limit_bytes))])).body

    def console_url(self, vm_id: str) -> str:
        """Where the VM's console is, as a WebSocket URL."""
        if self.profile.stream_url:
            return f"{self.profile.stream_url}/v1/vms/{quote(vm_id, safe='')}/console"
        return str(self._transport.send(Request("GET", f"{_path('vm', vm_id)}/console")).json()["url"])

    def wait_for(
        self, vm_id: str, words: Collection[str], deadline_s: float, on_change: OnChange | None = None
    ) -> Object:
        """The VM when it has one of the words. Raises DeadlineExceeded, or Conflict if it rests at a bad one."""
        patience_s = {word: limit_s for word, limit_s in PATIENCE_S.items() if word not in words}
        wish = Wish(f"vm {vm_id}", words, deadline_s, patience_s)
        return wait_until(lambda: self.get("vm", vm_id), wish, on_change) or {}

    def wait_migrated(
        self, vm_id: str, deadline_s: float, on_change: Callable[[Object], None] | None = None, *, after: str = ""
    ) -> Object:
        """The VM's newest migration once it is done. Raises Conflict if it ended otherwise, or DeadlineExceeded.

        ``after`` is the id of the request before it, if there was one.
        """
        return wait_migrated(lambda: self.get_migration(vm_id), f"vm {vm_id}", deadline_s, on_change, after=after)

    def wait_drained(self, host_id: str, deadline_s: float, on_change: OnChange | None = None) -> Object:
        """The host when nothing runs there. Raises Conflict if nothing of the rest can move, or DeadlineExceeded."""
        wish = Wish(f"host {host_id}", ("drained",), deadline_s, {BLOCKED: _BLOCKED_S})
        return wait_until(lambda: with_drain_word(self.get("host", host_id)), wish, on_change) or {}

    def wait_gone(self, noun: str, object_id: str, deadline_s: float, on_change: OnChange | None = None) -> None:
        wish = Wish(f"{noun} {object_id}", (GONE,), deadline_s, {})
        wait_until(lambda: self.get(noun, object_id), wish, on_change)

    # Images

    def upload_image(self, path: Path, fields: Mapping[str, str], progress: Progress | None = None) -> Object:
        """Sends a file; ``fields`` are name and, if wanted, sha256, user, project."""
        try:
            with path.open("rb") as file:
                return self._upload(file, fields, progress)
        except OSError as error:
            raise InvalidInput(f"failed to read {path}: {error.strerror}", code="unreadable_file") from error

    def import_image(self, body: Object, progress: Progress | None = None) -> Object:
        """Lets the cloud fetch ``body["url"]``. The image, when it is there."""
        request = Request(
            "POST",
            "/images",
            body=json.dumps(body).encode(),
            headers={**_json_headers(), "Accept": "application/x-ndjson, application/problem+json"},
            timeout_s=_TRANSFER_SILENCE_S,
        )
        with self._transport.open(request) as response:
            for line in response:
                if (image := _import_step(line, progress)) is not None:
                    return image
        raise Error("failed to import the image: the API ended before it was done", code="bad_answer")

    def _upload(self, file: BinaryIO, fields: Mapping[str, str], progress: Progress | None) -> Object:
        file.seek(0, 2)
        total = file.tell()
        file.seek(0)

        def chunks() -> Iterator[bytes]:
            done = 0
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
                done += len(chunk)
                if progress:
                    progress(done, total)

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(total)}
        query = [(name, value) for name, value in fields.items() if value]
        request = Request("POST", "/images/upload", query, chunks(), headers, timeout_s=_TRANSFER_SILENCE_S)
        return self._transport.send(request).json()

    # The cloud

    def get_failover(self) -> Object:
        """The hosts that were lost, and what is done about them."""
        return self._transport.send(Request("GET", "/failover")).json()

    def get_health(self) -> Object:
        """Also when the word is ``down``, which comes with status 503."""
        return self._transport.send(Request("GET", "/health", accepted=(503,))).json()

    def get_version(self) -> Object:
        return self._transport.send(Request("GET", "/version")).json()

    def _post(
        self,
        path: str,
        body: Object,
        *,
        dry_run: bool = False,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str = "",
    ) -> Answer:
        key = {} if dry_run else {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        all_headers = {**_json_headers(), **key, **(headers or {})}
        data = json.dumps(body).encode()
        return self._transport.send(Request("POST", path, query=_dry(dry_run), body=data, headers=all_headers))


def _path(noun: str, object_id: str) -> str:
    return f"/{noun}s/{quote(object_id, safe='')}"


def _query(filters: Filters) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in filters.items():
        pairs += [(name, value)] if isinstance(value, str) else [(name, one) for one in value]
    return pairs


def _dry(dry_run: bool) -> Query:
    return [("dry_run", "true")] if dry_run else []


def _json_headers() -> dict[str, str]:
    return {"Content-Type": "application/json", "Accept": "application/json, application/problem+json"}


def _if_match(generation: int | None) -> dict[str, str]:
    return {} if generation is None else {"If-Match": f'"{generation}"'}


def _import_step(line: bytes, progress: Progress | None) -> Object | None:
    """One line of an import's answer: the image if that is the last one, None for progress."""
    try:
        step = json.loads(line)
    except ValueError as error:
        raise Error("failed to read the API's answer: a line is not JSON", code="bad_answer") from error
    if problem := step.get("problem"):
        raise problem_error(problem, status=int(problem.get("status", 500)))
    if progress and (report := step.get("progress")):
        progress(int(report.get("bytes", 0)), report.get("total"))
    image: Object | None = step.get("image")
    return image
