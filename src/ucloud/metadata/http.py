"""As much of HTTP/1.1 as a guest needs to read a document: one GET or HEAD per connection. Pure.

Headers are measured and skipped: nothing a guest says but the path has any effect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from ucloud.metadata.documents import TEXT, Document

HEAD_LIMIT_BYTES = 16 * 1024

_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,4096}) HTTP/(\d)\.\d")
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True, slots=True)
class Request:
    """``status`` is 0 for a good request, else what to answer."""

    path: str = ""
    head_only: bool = False
    status: int = 0


def parse_request(received: bytes) -> Request | None:
    """The request in what was received so far, or None if its head is not complete yet."""
    end = _END_OF_HEAD.search(received)
    if end is None:
        return Request(status=431) if len(received) > HEAD_LIMIT_BYTES else None
    if end.start() > HEAD_LIMIT_BYTES:
        return Request(status=431)
    line = _REQUEST_LINE.fullmatch(received.split(b"\n", 1)[0].rstrip(b"\r"))
    if line is None:
        return Request(status=400)
    method, target, version = line.groups()
    if version != b"1":
        return Request(status=505)
    if method not in (b"GET", b"HEAD"):
        return Request(status=405)
    return Request(path=_path_of(target.decode("ascii")), head_only=method == b"HEAD")


def _path_of(target: str) -> str:
    if "://" in target:
        target = "/" + target.partition("://")[2].partition("/")[2]
    return unquote(target.partition("?")[0].partition("#")[0], errors="replace")


def render_response(status: int, document: Document | None = None, *, head_only: bool = False) -> bytes:
    """The bytes of an answer; without a document its text is the reason."""
    shown = document or Document(TEXT, f"{_REASONS[status]}\n".encode())
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {shown.kind}",
        f"Content-Length: {len(shown.body)}",
        "Connection: close",
        "Cache-Control: no-store",
        *(["Allow: GET, HEAD"] if status == 405 else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if head_only else shown.body)
