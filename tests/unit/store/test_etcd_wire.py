"""What is said to etcd's gateway and how its answers are read."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.store import etcd_wire as wire
from ucloud.store.api import Delete, EventKind, Put, Txn, absent, created_at, unchanged


@given(prefix=st.text(min_size=1), rest=st.text())
def test_a_range_holds_exactly_what_begins_with_the_prefix(prefix: str, rest: str) -> None:
    begin, end = prefix.encode(errors="ignore"), wire.range_end(prefix.encode(errors="ignore").decode())
    key = begin + rest.encode(errors="ignore")
    assert not begin or begin <= key < end


@given(prefix=st.text("ab/\U0010ffff", min_size=1, max_size=4), key=st.text("ab/\U0010ffff", max_size=6))
def test_a_range_holds_nothing_else(prefix: str, key: str) -> None:
    inside = prefix.encode() <= key.encode() < wire.range_end(prefix)
    assert inside == key.startswith(prefix)


def test_the_empty_prefix_is_everything() -> None:
    assert wire.range_end("") == b"\0"
    page = wire.render_page("", None, limit=5, revision=0)
    assert (wire.decode(page["key"]), wire.decode(page["range_end"])) == (b"\0", b"\0")


def test_the_next_page_begins_after_the_last_key() -> None:
    page = wire.render_page("/a/", "/a/z", limit=5, revision=7)
    assert (wire.decode(page["key"]), page["revision"], page["limit"]) == (b"/a/z\0", "7", "5")


def test_a_transaction() -> None:
    txn = Txn(
        (absent("a"), unchanged("b", 5), created_at("c", 6)),
        (Put("a", b"1", lease=1 << 60), Put("b", b""), Delete("c")),
    )
    body = json.loads(json.dumps(wire.render_txn(txn)))
    assert [(c["target"], c.get("mod_revision"), c.get("create_revision")) for c in body["compare"]] == [
        ("CREATE", None, "0"),
        ("MOD", "5", None),
        ("CREATE", None, "6"),
    ]
    assert body["success"][0]["request_put"]["lease"] == str(1 << 60)
    assert "lease" not in body["success"][1]["request_put"]
    assert wire.decode(body["success"][2]["request_delete_range"]["key"]) == b"c"


def test_a_delete_event_has_no_value() -> None:
    event = wire.parse_event({"type": "DELETE", "kv": {"key": wire.encode("a"), "mod_revision": "9"}})
    assert (event.kind, event.item.key, event.item.value) == (EventKind.DELETE, "a", b"")
    assert (event.item.mod_revision, event.item.create_revision, event.item.version) == (9, 0, 0)


@pytest.mark.parametrize(
    ("status", "text", "code", "message"),
    [
        (400, b'{"error":"x","message":"etcdserver: x","code":3}', 3, "etcdserver: x"),
        (200, b'{"error":{"grpc_code":14,"message":"no leader","http_code":503}}', 14, "no leader"),
        (502, b"<html>Bad gateway", 0, "<html>Bad gateway"),
        (500, b"[]", 0, "[]"),
    ],
)
def test_failures(status: int, text: bytes, code: int, message: str) -> None:
    assert wire.parse_failure(status, text) == wire.Failure(status, code, message)


@pytest.mark.parametrize(
    ("failure", "not_done", "maybe_done"),
    [
        (wire.Failure(503, 14, "etcdserver: no leader"), True, False),
        (wire.Failure(429, 8, "etcdserver: too many requests"), True, False),
        (wire.Failure(503, 14, "etcdserver: request timed out"), False, True),
        (wire.Failure(503, 14, "etcdserver: server stopped"), False, True),
        (wire.Failure(502, 0, ""), False, True),
        (wire.Failure(400, 3, "etcdserver: duplicate key given in txn request"), False, False),
        (wire.Failure(400, 8, "etcdserver: mvcc: database space exceeded"), False, False),
        (wire.Failure(403, 7, "etcdserver: permission denied"), False, False),
    ],
)
def test_what_may_have_happened(failure: wire.Failure, not_done: bool, maybe_done: bool) -> None:
    assert (wire.is_surely_not_done(failure), wire.is_maybe_done(failure)) == (not_done, maybe_done)


@pytest.mark.parametrize("message", ["invalid auth token", "user name is empty", "revision of auth store is old"])
def test_a_login_is_needed(message: str) -> None:
    assert wire.is_login_needed(wire.Failure(400, 3, f"etcdserver: {message}"))
