"""What is said to etcd's JSON gateway and how its answers are read: pure, no I/O.

etcd's own names and numbers stay in here: base64 for bytes, 64-bit numbers as text, gRPC status codes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from ucloud.store.api import Compare, Delete, EventKind, Item, Put, Target, Txn, WatchEvent

RANGE = "/v3/kv/range"
TXN = "/v3/kv/txn"
COMPACT = "/v3/kv/compaction"
WATCH = "/v3/watch"
GRANT = "/v3/lease/grant"
KEEP = "/v3/lease/keepalive"
REVOKE = "/v3/lease/revoke"
AUTHENTICATE = "/v3/auth/authenticate"
STATUS = "/v3/maintenance/status"


class Code(IntEnum):
    """gRPC status codes that mean something to us."""

    UNKNOWN = 2
    INVALID = 3
    NOT_FOUND = 5
    DENIED = 7
    EXHAUSTED = 8
    PRECONDITION = 9
    OUT_OF_RANGE = 11
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that a member answered with. ``status`` is HTTP's, ``code`` gRPC's (0: none was given)."""

    status: int
    code: int
    message: str


def encode(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode("ascii")


def decode(text: str) -> bytes:
    return base64.b64decode(text)


def range_end(prefix: str) -> bytes:
    """The first key after all that begin with ``prefix``; a zero byte (etcd's "no end") if there is none."""
    raw = prefix.encode().rstrip(b"\xff")
    return raw[:-1] + bytes([raw[-1] + 1]) if raw else b"\0"


def render_get(key: str) -> dict[str, Any]:
    return {"key": encode(key)}


def render_page(prefix: str, after: str | None, *, limit: int, revision: int) -> dict[str, Any]:
    """One page of a listing: up to ``limit`` keys after the key ``after``, as of ``revision`` (0: now)."""
    first = (prefix or "\0") if after is None else f"{after}\0"
    body: dict[str, Any] = {"key": encode(first), "range_end": encode(range_end(prefix)), "limit": str(limit)}
    return {**body, "revision": str(revision)} if revision else body


def render_txn(txn: Txn) -> dict[str, Any]:
    return {
        "compare": [_render_compare(compare) for compare in txn.compares],
        "success": [_render_write(write) for write in txn.writes],
    }


def render_read(wanted: Iterable[str]) -> dict[str, Any]:
    """A transaction that only reads: all keys at one revision, and linearizable as every transaction is."""
    return {"success": [{"request_range": render_get(key)} for key in wanted]}


def parse_read(answer: Mapping[str, Any]) -> dict[str, Item]:
    """The items that were there, by key."""
    found = [parse_item(raw) for part in answer.get("responses", ()) for raw in part["response_range"].get("kvs", ())]
    return {item.key: item for item in found}


def _render_compare(compare: Compare) -> dict[str, Any]:
    body = {"key": encode(compare.key), "result": "EQUAL", "target": compare.target.value.upper()}
    match compare.target:
        case Target.MOD:
            return {**body, "mod_revision": str(compare.revision)}
        case Target.CREATE:
            return {**body, "create_revision": str(compare.revision)}


def _render_write(write: Put | Delete) -> dict[str, Any]:
    if isinstance(write, Delete):
        return {"request_delete_range": {"key": encode(write.key)}}
    body = {"key": encode(write.key), "value": encode(write.value)}
    return {"request_put": {**body, "lease": str(write.lease)} if write.lease else body}


def render_watch(prefix: str, from_revision: int) -> dict[str, Any]:
    return {
        "create_request": {
            "key": encode(prefix or "\0"),
            "range_end": encode(range_end(prefix)),
            "start_revision": str(from_revision),
            "progress_notify": True,
        }
    }


def parse_item(raw: Mapping[str, Any]) -> Item:
    return Item(
        key=decode(raw["key"]).decode(errors="replace"),
        value=decode(raw.get("value", "")),
        mod_revision=int(raw.get("mod_revision", 0)),
        create_revision=int(raw.get("create_revision", 0)),
        version=int(raw.get("version", 0)),
        lease=int(raw.get("lease", 0)),
    )


def parse_event(raw: Mapping[str, Any]) -> WatchEvent:
    kind = EventKind.DELETE if raw.get("type") == "DELETE" else EventKind.PUT
    return WatchEvent(kind, parse_item(raw["kv"]))


def parse_revision(answer: Mapping[str, Any]) -> int:
    """The store's revision, from an answer's header."""
    return int(answer.get("header", {}).get("revision", 0))


def parse_term(answer: Mapping[str, Any]) -> int:
    """The raft term in which the member answered."""
    return int(answer.get("header", {}).get("raft_term", 0))


def parse_json(text: bytes) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def parse_failure(status: int, text: bytes) -> Failure:
    try:
        body = parse_json(text)
    except ValueError:
        return Failure(status, 0, text[:200].decode(errors="replace").strip())
    inner = body.get("error")  # on streams it is an object, else text
    if isinstance(inner, dict):
        return Failure(status, int(inner.get("grpc_code", 0)), str(inner.get("message", "")))
    return Failure(status, int(body.get("code", 0)), str(body.get("message") or inner or ""))


def is_login_needed(failure: Failure) -> bool:
    """The token is missing, unknown to this member (it was restarted), or older than a change of the users."""
    return failure.code == Code.UNAUTHENTICATED or any(
        words in failure.message
        for words in ("invalid auth token", "user name is empty", "revision of auth store is old")
    )


def is_surely_not_done(failure: Failure) -> bool:
    """The member refused before it proposed anything, and may accept later or elsewhere."""
    return any(words in failure.message for words in ("no leader", "too many requests", "raft proposal dropped"))


def is_maybe_done(failure: Failure) -> bool:
    """The member gave up waiting: what was asked may still happen."""
    return not is_surely_not_done(failure) and (
        failure.status >= 500 or failure.code in (0, Code.UNKNOWN, Code.UNAVAILABLE)
    )
