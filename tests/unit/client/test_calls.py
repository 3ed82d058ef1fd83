"""The client against a small server that speaks the contract's JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fake_api import FakeApi, Reply, problem
from ucloud.client import Client, ClientError, Profile
from ucloud.errors import Conflict, DeadlineExceeded, InvalidInput, NotFound, PreconditionFailed, Unavailable


def test_a_refusal_carries_all_of_the_problem(api: FakeApi, client: Client) -> None:
    api.overrides.append(
        lambda seen: problem(409, "in_use", "failed to delete network main: used", users=["vm-1"], hint="delete them")
    )
    with pytest.raises(Conflict) as caught:
        client.delete("network", "network-1")
    error = caught.value
    assert isinstance(error, ClientError)
    assert (error.code, error.status, error.users, error.hint) == ("in_use", 409, ("vm-1",), "delete them")
    assert error.request_id == "r1"


@pytest.mark.parametrize(
    ("status", "cls"),
    [(400, InvalidInput), (404, NotFound), (409, Conflict), (412, PreconditionFailed), (429, Unavailable)],
)
def test_status_decides_the_class(api: FakeApi, client: Client, status: int, cls: type[Exception]) -> None:
    api.overrides.append(lambda seen: problem(status, "some_code", "no"))
    with pytest.raises(cls) as caught:
        client.get("vm", "vm-1")
    assert isinstance(caught.value, ClientError)


def test_an_answer_that_is_no_problem_still_says_something(api: FakeApi, client: Client) -> None:
    api.overrides.append(lambda seen: Reply(500, b"<h1>Oops</h1>", "text/html", {"X-Request-Id": "r9"}))
    with pytest.raises(ClientError, match="500: <h1>Oops") as caught:
        client.get("vm", "vm-1")
    assert caught.value.request_id == "r9"


def test_pages_are_followed_and_the_limit_holds(api: FakeApi, client: Client) -> None:
    for number in range(7):
        api.add("vm", f"vm-{number}", f"web{number}")
    api.page_limit = 3
    assert [one["name"] for one in client.each("vm")] == [f"web{number}" for number in range(7)]
    assert [one["name"] for one in client.each("vm", limit=5)] == [f"web{number}" for number in range(5)]


def test_events_continue_behind_the_last(api: FakeApi, client: Client) -> None:
    for number in range(7):
        api.add("event", f"e{number}", "")
    api.page_limit = 2
    assert [one["id"] for one in client.each("event")] == ["e5", "e6"]
    assert [one["id"] for one in client.each("event", {"after": "e1"})] == ["e2", "e3", "e4", "e5", "e6"]
    assert all("page" not in seen.query for seen in api.seen)


def test_a_reboot_is_over_when_the_next_boot_runs(api: FakeApi, client: Client) -> None:
    vm = api.add("vm", "vm-1", "web", {"boots": 2}, status={"word": "running", "boots": 1})
    told: list[tuple[str, str]] = []

    def on_change(word: str, reason: str) -> None:
        told.append((word, reason))
        vm["status"]["boots"] = 2

    client.wait_for("vm-1", ("running",), 10, on_change)
    assert told == [("starting", "waits for its boot 2"), ("running", "")]


def test_labels_are_repeated_parameters(api: FakeApi, client: Client) -> None:
    list(client.each("vm", {"label": ["a=1", "b=2"], "project": "lab"}))
    assert api.seen[-1].query["label"] == ["a=1", "b=2"]
    assert api.seen[-1].query["project"] == ["lab"]


def test_find_by_id_name_and_ambiguous_name(api: FakeApi, client: Client) -> None:
    api.add("vm", "vm-one", "web")
    api.add("vm", "vm-two", "web")
    api.add("vm", "vm-three", "vm-odd")
    assert client.find("vm", "vm-one")["id"] == "vm-one"
    assert client.find("vm", "vm-odd")["id"] == "vm-three"
    with pytest.raises(Conflict, match="ambiguous") as caught:
        client.find("vm", "web")
    assert "vm-one, vm-two" in caught.value.hint
    with pytest.raises(NotFound, match="no such id or name"):
        client.find("vm", "db")


def test_find_prefers_what_is_not_being_deleted(api: FakeApi, client: Client) -> None:
    api.add("vm", "vm-old", "web", deleted_at="2026-01-01T00:00:00Z")
    api.add("vm", "vm-new", "web")
    assert client.find("vm", "web")["id"] == "vm-new"


def test_a_create_without_an_answer_is_repeated_with_its_key(api: FakeApi, client: Client) -> None:
    drops = [Reply(0), problem(503, "store_unavailable", "no")]
    api.overrides.append(lambda seen: drops.pop() if drops and seen.method == "POST" else None)
    assert client.create("vm", {"name": "web"})["name"] == "web"
    sent = [seen.headers["idempotency-key"] for seen in api.seen]
    assert len(sent) == 3
    assert len(set(sent)) == 1


def test_an_update_without_an_answer_is_not_repeated(api: FakeApi, client: Client) -> None:
    api.overrides.append(lambda seen: Reply(0) if seen.method == "PATCH" else None)
    with pytest.raises(Unavailable):
        client.update("vm", "vm-1", {"name": "x"})
    assert len(api.seen) == 1


def test_patience_ends(api: FakeApi, served: tuple[FakeApi, Profile]) -> None:
    api.overrides.append(lambda seen: problem(503, "store_unavailable", "no etcd answers"))
    with Client(served[1], patience_s=0.2) as client, pytest.raises(Unavailable, match="no etcd"):
        client.get("vm", "vm-1")
    assert len(api.seen) >= 2


def test_health_is_read_also_when_down(api: FakeApi, client: Client) -> None:
    api.overrides.append(lambda seen: Reply(503, {"word": "down"}))
    assert client.get_health() == {"word": "down"}
    assert len(api.seen) == 1


def test_nobody_listens(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t")
    with Client(Profile("http://127.0.0.1:1/v1", token), patience_s=0) as client:
        with pytest.raises(Unavailable, match="Connection refused") as caught:
            client.get("vm", "vm-1")
        assert "ucloud status" in caught.value.hint


def test_generation_and_dry_run_are_sent(api: FakeApi, client: Client) -> None:
    api.add("vm", "vm-1", "web")
    client.update("vm", "vm-1", {"name": "x"}, generation=3, dry_run=True)
    assert api.seen[-1].headers["if-match"] == '"3"'
    assert api.seen[-1].query["dry_run"] == ["true"]


def test_one_connection_serves_many_requests(api: FakeApi, client: Client) -> None:
    ports: set[str] = set()
    api.add("vm", "vm-1", "web")
    for _ in range(3):
        client.get("vm", "vm-1")
        assert client._transport._connection is not None
        ports.add(str(client._transport._connection.sock.getsockname()))
    assert len(ports) == 1


def test_a_connection_that_the_api_closed_is_replaced(api: FakeApi, client: Client) -> None:
    api.add("vm", "vm-1", "web")
    api.overrides.append(lambda seen: Reply(200, {"id": "x"}, headers={"Connection": "close"}))
    client.get("vm", "vm-1")
    assert client.update("vm", "vm-1", {}) == {"id": "x"}


def test_upload_streams_with_progress(api: FakeApi, client: Client, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(b"x" * 600_000)
    steps: list[tuple[int, int | None]] = []
    made = client.upload_image(image, {"name": "disk", "user": ""}, lambda done, total: steps.append((done, total)))
    assert made["spec"]["size_bytes"] == 600_000
    assert steps[-1] == (600_000, 600_000)
    assert len(steps) == 3
    assert "user" not in api.seen[-1].query
    with pytest.raises(InvalidInput, match="SHA-256") as caught:
        client.upload_image(image, {"name": "disk", "sha256": "00"})
    assert caught.value.code == "checksum_mismatch"


def test_upload_of_a_file_that_is_not_there(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        client.upload_image(tmp_path / "none", {"name": "x"})


def test_import_reports_progress_and_gives_the_image(client: Client) -> None:
    steps: list[tuple[int, int | None]] = []
    image = client.import_image({"name": "d", "url": "http://x/d"}, lambda done, total: steps.append((done, total)))
    assert image["name"] == "d"
    assert steps == [(5, 10), (10, 10)]


@pytest.mark.parametrize(
    ("line", "cls", "text"),
    [
        (b'{"problem": {"status": 409, "code": "name_taken", "detail": "taken"}}\n', Conflict, "taken"),
        (b'{"progress": {"bytes": 1, "total": null}}\n', Exception, "before it was done"),
        (b"{nonsense\n", Exception, "not JSON"),
    ],
)
def test_imports_that_fail(api: FakeApi, client: Client, line: bytes, cls: type[Exception], text: str) -> None:
    api.overrides.append(lambda seen: Reply(200, line, "application/x-ndjson"))
    with pytest.raises(cls, match=text):
        client.import_image({"name": "d", "url": "http://x/d"})


def test_waiting_tells_of_changes_and_ends_at_the_word(api: FakeApi, client: Client) -> None:
    api.add("vm", "vm-1", "web")
    api.story = [("scheduling", "a"), ("scheduling", "a"), ("starting", "b"), ("running", "")]
    told: list[tuple[str, str]] = []
    vm = client.wait_for("vm-1", ("running",), 10, lambda word, reason: told.append((word, reason)))
    assert vm["status"]["word"] == "running"
    assert told == [("scheduling", "a"), ("starting", "b"), ("running", "")]


def test_waiting_has_a_deadline(api: FakeApi, client: Client) -> None:
    api.add("vm", "vm-1", "web", status={"word": "preparing", "reason": "fetches the image"})
    with pytest.raises(DeadlineExceeded, match=r"still preparing after 0.2 s: fetches the image"):
        client.wait_for("vm-1", ("running",), 0.2)


def test_waiting_until_gone(api: FakeApi, client: Client) -> None:
    api.add("vm", "vm-1", "web", status={"word": "deleting"})
    answers = [None, None, problem(404, "not_found", "gone")]
    api.overrides.append(lambda seen: answers.pop(0))
    client.wait_gone("vm", "vm-1", 10)
    assert answers == []


def test_a_wrong_token(api: FakeApi, served: tuple[FakeApi, Profile]) -> None:
    served[1].token_file.write_text("other")
    with Client(served[1]) as client, pytest.raises(ClientError) as caught:
        client.get("vm", "x")
    assert caught.value.code == "unauthorized"


def test_console_url_of_the_profile_goes_first(api: FakeApi, served: tuple[FakeApi, Profile]) -> None:
    profile = Profile(served[1].url, served[1].token_file, "ws://127.0.0.1:9")
    with Client(profile) as client:
        assert client.console_url("vm-1") == "ws://127.0.0.1:9/v1/vms/vm-1/console"
