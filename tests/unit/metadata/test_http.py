"""Requests as guests send them, whole, in pieces, and broken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.metadata.documents import TEXT, Document
from ucloud.metadata.http import HEAD_LIMIT_BYTES, Request, parse_request, render_response


@pytest.mark.parametrize(
    ("received", "request_"),
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", Request("/a")),
        (b"GET /a HTTP/1.0\n\n", Request("/a")),
        (b"HEAD /a?b=c HTTP/1.1\r\n\r\n", Request("/a", head_only=True)),
        (b"GET http://metadata/a%20b HTTP/1.1\r\n\r\n", Request("/a b")),
        (b"GET http://metadata HTTP/1.1\r\n\r\n", Request("/")),
        (b"GET /a HTTP/1.1\r\nHost: x\r\n", None),
        (b"", None),
        (b"PUT /a HTTP/1.1\r\n\r\n", Request(status=405)),
        (b"GET /a HTTP/2.0\r\n\r\n", Request(status=505)),
        (b"GET /a\r\n\r\n", Request(status=400)),
        (b"get /a HTTP/1.1\r\n\r\n", Request(status=400)),
        (b"GET /a b HTTP/1.1\r\n\r\n", Request(status=400)),
        (b"GET /\xff HTTP/1.1\r\n\r\n", Request(status=400)),
        (b"\r\n\r\n", Request(status=400)),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", Request(status=400)),
        (b"x" * (HEAD_LIMIT_BYTES + 1), Request(status=431)),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * HEAD_LIMIT_BYTES + b"\r\n\r\n", Request(status=431)),
    ],
)
def test_parse(received: bytes, request_: Request | None) -> None:
    assert parse_request(received) == request_


@given(st.binary(max_size=200))
def test_any_bytes_are_an_answer_or_a_wait(received: bytes) -> None:
    parsed = parse_request(received)
    assert parsed is None or parsed.status in (0, 400, 405, 431, 505)


def test_response() -> None:
    document = Document(TEXT, b"hello\n")

    assert render_response(200, document).startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain")
    assert render_response(200, document).endswith(b"\r\n\r\nhello\n")
    assert render_response(200, document, head_only=True).endswith(b"\r\n\r\n")
    assert b"Content-Length: 6\r\n" in render_response(200, document, head_only=True)
    assert b"Allow: GET, HEAD\r\n" in render_response(405)
