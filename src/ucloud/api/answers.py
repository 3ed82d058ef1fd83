"""Answers as values, and how they become responses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flask import Response

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` is a plain JSON value, or bytes or a stream of lines of ``content_type``."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON


def etag(generation: int) -> str:
    return f'"{generation}"'


def render(answer: Answer) -> Response:
    payload: bytes | Iterable[bytes] = answer.body
    if answer.content_type == JSON:
        payload = json.dumps(answer.body, ensure_ascii=False, separators=(",", ":")).encode()
    response = Response(payload, answer.status, content_type=answer.content_type)
    response.headers.update(dict(answer.headers))
    return response
