"""Who may write a volume: never two, never a fenced one, and nobody takes what another still has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.errors import Conflict, Error, Forbidden, InvalidInput
from ucloud.storage.service.access import PROBES_KEPT_S, PROBES_LIMIT, Access, Client, export_name, parse_export

A, A2, B = Client("h1", "guard-a"), Client("h1", "guard-b"), Client("h2", "guard-c")
CLIENTS = (A, A2, B)
_DEEDS = st.sampled_from(("acquire", "move", "release", "connect", "disconnect", "fence"))


@given(st.lists(st.tuples(_DEEDS, st.sampled_from(CLIENTS), st.floats(0, 20)), max_size=40), st.floats(0, 10))
def test_whatever_happens_there_is_one_writer_at_most(deeds: list[tuple[str, Client, float]], linger_s: float) -> None:
    access, now_s = Access(linger_s=linger_s), 0.0
    fenced: set[Client] = set()
    for deed, client, passed_s in deeds:
        now_s += passed_s
        before = [one for one in CLIENTS if access.may_write("v", one)]
        connected = {one for one in CLIENTS if access.connected.get(("v", one))}
        failed = _do(access, deed, client, now_s)
        fenced |= {client} if deed == "fence" else set()
        after = [one for one in CLIENTS if access.may_write("v", one)]
        assert len(after) <= 1
        assert not fenced.intersection(after)
        lost = set(before) - set(after)
        if lost and deed == "acquire":
            assert not lost & connected, "a connected writer was robbed"
        if failed:
            assert before == after


def _do(access: Access, deed: str, client: Client, now_s: float) -> bool:
    try:
        match deed:
            case "acquire":
                access.acquire("v", client, now_s=now_s)
            case "move":
                access.acquire("v", client, now_s=now_s, moved_from="h1" if client == B else "h2")
            case "release":
                access.release("v", client)
            case "connect":
                access.connect("v", client)
            case "disconnect":
                if access.connected.get(("v", client)):
                    access.disconnect("v", client, now_s=now_s)
            case _:
                access.fence(client, now_s=now_s)
    except Error:
        return True
    return False


def test_a_dead_writers_lock_lingers() -> None:
    access = Access(linger_s=5.0)
    access.connect("v", A)
    access.acquire("v", A, now_s=0.0)
    access.disconnect("v", A, now_s=100.0)

    with pytest.raises(Conflict, match=r"host h1 holds it, for 2\.0 s more") as caught:
        access.acquire("v", B, now_s=103.0)
    assert caught.value.code == "volume_locked"
    access.acquire("v", B, now_s=105.0)
    assert access.may_write("v", B)
    assert not access.may_write("v", A)


def test_a_connection_that_comes_back_changes_nothing() -> None:
    access = Access()
    access.acquire("v", A, now_s=0.0)
    access.connect("v", A)
    access.disconnect("v", A, now_s=1.0)
    access.connect("v", A)

    assert access.may_write("v", A)
    with pytest.raises(Conflict, match="while it is connected"):
        access.acquire("v", B, now_s=100.0)


def test_who_was_promised_a_volume_has_time_to_come() -> None:
    access = Access()
    access.acquire("v", A, now_s=0.0)
    with pytest.raises(Conflict):
        access.acquire("v", B, now_s=29.0)
    access.acquire("v", A2, now_s=1.0)
    assert access.may_write("v", A2)


def test_a_migration_takes_the_volume_over_from_that_host_only() -> None:
    access = Access()
    access.acquire("v", A, now_s=0.0)
    access.connect("v", A)
    access.connect("v", B)
    with pytest.raises(Conflict):
        access.acquire("v", B, now_s=1.0, moved_from="h3")
    access.acquire("v", B, now_s=1.0, moved_from="h1")
    assert access.may_write("v", B)
    with pytest.raises(Conflict):
        access.acquire("v", A, now_s=2.0)


def test_a_fenced_client_is_out_for_ever() -> None:
    access = Access()
    access.acquire("v", A, now_s=0.0)
    access.fence(A, now_s=0)
    with pytest.raises(Forbidden):
        access.acquire("v", A, now_s=9.0)
    with pytest.raises(Forbidden):
        access.connect("v", A)
    access.acquire("v", A2, now_s=9.0)


@given(st.text(max_size=80))
def test_strange_names_are_refused(name: str) -> None:
    try:
        volume, client = parse_export(name)
    except InvalidInput:
        return
    assert export_name(volume, client) == name


def test_names() -> None:
    assert parse_export("vm-1@h2.guard-x") == ("vm-1", Client("h2", "guard-x"))
    for name in ("../x@h.i", "vm@h", "@h.i", "vm@.i", "vm@h.", "vm@h.i\n", "a/b@h.i"):
        with pytest.raises(InvalidInput):
            parse_export(name)


def test_fenced_probes_are_remembered_for_a_while_only() -> None:
    access, probes = Access(), [Client("h1", f"probe-{number}") for number in range(PROBES_LIMIT + 5)]
    access.fence(A, now_s=0)
    for probe in probes:
        access.fence(probe, now_s=1)
    assert not access.is_fenced(probes[0])
    assert access.is_fenced(probes[5])
    with pytest.raises(Forbidden):
        access.acquire("v", probes[-1], now_s=2)
    access.fence(Client("h1", "probe-last"), now_s=1 + PROBES_KEPT_S)
    assert len(access.probes) == 1
    assert access.fenced == {A}
