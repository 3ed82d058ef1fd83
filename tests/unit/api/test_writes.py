"""Lost races, lost answers, repeated requests: each change happens exactly once or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.api.service import PUBLIC_KEY, Service
from ucloud.store.api import Delete, Txn

KEY = {"name": "k", "public_key": PUBLIC_KEY}


def test_etag_and_if_match(service: Service) -> None:
    key = service.post("/v1/keys", KEY)
    path = f"/v1/keys/{key['id']}"
    stale, fresh = {"If-Match": '"7"'}, {"If-Match": '"3", "1"'}
    assert service.problem("PATCH", path, 412, json={"name": "x"}, headers=stale)["code"] == "precondition_failed"
    response = service.ask("PATCH", path, json={"name": "x"}, headers=fresh)
    assert (response.status_code, response.headers["ETag"]) == (200, '"2"')
    assert service.ask("GET", path).headers["ETag"] == '"2"'
    assert service.problem("DELETE", path, 412, headers={"If-Match": '"1"'})["hint"]
    assert service.ask("DELETE", path, headers={"If-Match": "*"}).status_code == 202


def test_if_match_on_actions(ready: Service, vm: Any) -> None:
    path = f"/v1/vms/{vm['id']}/actions/stop"
    assert ready.problem("POST", path, 412, headers={"If-Match": '"2"'})["code"] == "precondition_failed"


def test_an_idempotency_key_makes_one_object(service: Service) -> None:
    headers = {"Idempotency-Key": "abc"}
    first = service.ask("POST", "/v1/keys", json=KEY, headers=headers)
    again = service.ask("POST", "/v1/keys", json=KEY, headers=headers)
    assert (first.status_code, again.status_code, first.json) == (201, 201, again.json)
    assert "Idempotent-Replay" not in first.headers
    assert again.headers["Idempotent-Replay"] == "true"
    problem = service.problem("POST", "/v1/keys", 409, json={**KEY, "name": "other"}, headers=headers)
    assert problem["code"] == "idempotency_key_reused"
    assert len(service.get("/v1/keys")["items"]) == 1


def test_the_same_key_at_once(ready: Service) -> None:
    answers: list[Any] = []
    body = {"name": "a", "image": "tiny"}
    ready.in_parallel(
        8, lambda _: answers.append(ready.ask("POST", "/v1/vms", json=body, headers={"Idempotency-Key": "k"}))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replay" in answer.headers for answer in answers) == 7
    assert len(ready.get("/v1/vms")["items"]) == 1


def test_a_repeated_reboot_reboots_once(ready: Service, vm: Any) -> None:
    path, headers = f"/v1/vms/{vm['id']}/actions/reboot", {"Idempotency-Key": "k"}
    for _ in range(3):
        boots = ready.post(path, {}, status=202, headers=headers)["spec"]["boots"]
        assert boots == 2


def test_a_repeat_of_what_is_gone(service: Service) -> None:
    headers = {"Idempotency-Key": "k"}
    key = service.post("/v1/keys", KEY, headers=headers)
    claims = [name for name in service.dump() if "/claim/name/" in name or name.endswith(key["id"])]
    service.store.commit(Txn((), tuple(Delete(name) for name in claims)))
    assert service.problem("POST", "/v1/keys", 409, json=KEY, headers=headers)["code"] == "idempotency_key_reused"


def test_a_dry_run_takes_no_idempotency_key(service: Service) -> None:
    headers = {"Idempotency-Key": "k"}
    service.post("/v1/keys?dry_run=true", KEY, status=200, headers=headers)
    assert "Idempotent-Replay" not in service.ask("POST", "/v1/keys", json=KEY, headers=headers).headers


@pytest.mark.parametrize("key", ["", "k"])
def test_a_create_whose_answer_was_lost(service: Service, key: str) -> None:
    service.store.lose_answers = 1
    headers = {"Idempotency-Key": key} if key else {}
    made = service.post("/v1/keys", KEY, headers=headers)
    assert [item["id"] for item in service.get("/v1/keys")["items"]] == [made["id"]]


def test_a_create_whose_request_was_lost(service: Service) -> None:
    service.store.lose_requests = 2
    made = service.post("/v1/keys", KEY)
    assert [item["id"] for item in service.get("/v1/keys")["items"]] == [made["id"]]


def test_a_reboot_whose_answer_was_lost_happens_once(ready: Service, vm: Any) -> None:
    ready.store.lose_answers = 1
    assert ready.post(f"/v1/vms/{vm['id']}/actions/reboot", {}, status=202)["spec"]["boots"] == 2


def test_a_reboot_whose_answer_was_lost_happens_once_although_others_write(ready: Service, vm: Any) -> None:
    """What was written is not there as it was written any more: it was done nevertheless."""
    ready.store.lose_answers = 1
    ready.store.after_loss = lambda: ready.patch(f"/v1/vms/{vm['id']}", {"labels": {"by": "another"}})
    ready.post(f"/v1/vms/{vm['id']}/actions/reboot", {}, status=202)
    shown = ready.get(f"/v1/vms/{vm['id']}")
    assert (shown["spec"]["boots"], shown["labels"]) == (2, {"by": "another"})


def test_a_delete_whose_answer_was_lost_although_all_is_gone(service: Service) -> None:
    key = service.post("/v1/keys", KEY)
    claims = [name for name in service.dump() if "/claim/name/" in name or name.endswith(key["id"])]
    service.store.lose_answers = 1
    service.store.after_loss = lambda: service.store.commit(Txn((), tuple(Delete(name) for name in claims))) and None
    assert service.ask("DELETE", f"/v1/keys/{key['id']}").status_code == 202


def test_a_store_that_never_answers_is_told(service: Service) -> None:
    service.store.lose_requests = 1000
    assert service.problem("POST", "/v1/keys", 500, json=KEY)["code"] == "outcome_unknown"


def test_changes_at_once_all_happen(service: Service) -> None:
    key = service.post("/v1/keys", KEY)
    path = f"/v1/keys/{key['id']}"
    service.in_parallel(6, lambda index: service.patch(path, {"labels": {"n": str(index)}}))
    assert service.get(path)["generation"] == 7


def test_one_who_always_loses_is_told(service: Service) -> None:
    key = service.post("/v1/keys", KEY)
    path = f"/v1/keys/{key['id']}"
    count = iter(range(1000))

    def intrude(_: Any) -> None:
        service.store.before_commit = lambda _: None
        service.patch(path, {"labels": {"n": str(next(count))}})
        service.store.before_commit = intrude

    service.store.before_commit = intrude
    assert service.problem("PATCH", path, 409, json={"name": "x"})["code"] == "conflict"
