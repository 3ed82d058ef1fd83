"""The token, headers of every answer, health, hosts, and that surprises become problems."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.api.service import TOKEN, Service
from ucloud.errors import MissingPrerequisite, StoreUnavailable
from ucloud.serving.token import read_token
from ucloud.store import keys
from ucloud.store.api import Put
from ucloud.store.codec import encode


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer \xfc", "Bearer null"]
)
@pytest.mark.parametrize("path", ["/v1/vms", "/v1/nothing", "/", "/v1/vms/x/log", "/v1/openapi.json/"])
def test_without_the_token_nothing_is_told(service: Service, header: str, path: str) -> None:
    response = service.app.test_client().get(path, headers={"Authorization": header} if header else {})
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="ucloud"')
    assert (response.json or {})["code"] == "unauthorized"


@pytest.mark.parametrize("path", ["/v1/health", "/v1/version", "/v1/openapi.json"])
def test_open_paths(service: Service, path: str) -> None:
    assert service.app.test_client().get(path).status_code == 200


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_no_api_without_a_token(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "token").write_text(content)
    with pytest.raises(MissingPrerequisite):
        read_token(tmp_path / "token")


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_request_ids(service: Service, given: str, kept: bool) -> None:
    response = service.ask("GET", "/v1/vms", headers={"X-Request-Id": given})
    assert (response.headers["X-Request-Id"] == given) is kept
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"


def test_the_access_log_has_no_secrets(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        service.ask("GET", "/v1/vms/a%0Ab?name=hidden")
    assert "GET /v1/vms/a\\nb 404" in caplog.text or "GET /v1/vms/a\\nb 400" in caplog.text
    assert TOKEN not in caplog.text
    assert "hidden" not in caplog.text


def test_health(service: Service) -> None:
    health = service.get("/v1/health")
    assert health["word"] == "degraded"
    assert health["parts"]["scheduler"] == {"ok": False, "reason": "none is elected"}
    service.seed(
        Put(keys.election("scheduler") + "one", b"not one of our values"),
        Put(keys.alive("host-1"), encode(samples.LIFE_SIGN)),
    )
    health = service.get("/v1/health")
    assert (health["word"], health["parts"]["hosts"]["alive"]) == ("ok", 1)


def test_health_without_a_store(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise StoreUnavailable("failed to ask the store")

    monkeypatch.setattr(service.store, "get", fail)
    response = service.app.test_client().get("/v1/health")
    assert (response.status_code, (response.json or {})["word"]) == (503, "down")
    assert service.problem("POST", "/v1/networks", 503, json={"name": "a"})["code"] == "store_unavailable"
    service.get("/v1/networks")


def test_health_cannot_be_used_to_load_the_store(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(service.store, "get", asked.append)
    for _ in range(50):
        service.get("/v1/health")
    assert len(asked) <= 2


def test_a_mistake_of_ours_is_told_without_its_text(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise RuntimeError("a secret of the program")

    monkeypatch.setattr(service.store, "get", fail)
    problem = service.problem("POST", "/v1/networks", 500, json={"name": "a"})
    assert problem["code"] == "internal"
    assert "secret" not in str(problem)


def test_hosts(service: Service) -> None:
    host = service.post("/v1/hosts", {"name": "h1", "id": "host-1"})
    assert (host["id"], host["status"]["word"]) == ("host-1", "new")
    assert service.problem("POST", "/v1/hosts", 409, json={"name": "h2", "id": "host-1"})["code"] == "name_taken"
    assert service.problem("POST", "/v1/hosts", 409, json={"name": "h1"})["code"] == "name_taken"
    assert service.post("/v1/hosts", {"name": "h2"})["id"].startswith("host-")
    assert service.patch("/v1/hosts/host-1", {"schedulable": False})["spec"]["schedulable"] is False
    service.seed(
        Put(keys.seen("host-1", "host", "host-1"), encode(samples.SEEN_HOST)),
        Put(keys.placement("vm-1"), encode(samples.PLACEMENT)),
        Put(keys.alive("host-1"), encode(samples.LIFE_SIGN)),
    )
    status: Any = service.get("/v1/hosts/host-1")["status"]
    assert (status["word"], status["vms"]) == ("unschedulable", 1)
    assert status["claimed"] == {"cpus": 2, "memory_mib": 512, "disk_gib": 10}
    assert status["cpus"] == samples.SEEN_HOST.cpus
