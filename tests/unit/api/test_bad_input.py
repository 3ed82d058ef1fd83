"""Every bad input gets its clear error, and writes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.api.service import PUBLIC_KEY, Service

VM = {"name": "web1", "image": "tiny"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One for all: nothing here may write."""
    service = Service(tmp_path_factory.mktemp("service"))
    yield service
    service.close()


@pytest.fixture(scope="module")
def ready(service: Service) -> Service:
    service.seed_image()
    service.post("/v1/networks", {"name": "main", "ipv4_subnet": "10.0.0.0/24"})
    return service


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"memory": 512}, "memory"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x00"}, "name"),
        ({"name": "\x1b[31m"}, "name"),
        ({"name": "x" * 300}, "name"),
        ({"name": ""}, "name"),
        ({"name": "web_1"}, "name"),
        ({"name": "-web"}, "name"),
        ({"name": "web\n"}, "name"),
        ({"name": 7}, "name"),
        ({"name": None}, "name"),
        ({"cpus": 0}, "cpus"),
        ({"cpus": -1}, "cpus"),
        ({"cpus": 257}, "cpus"),
        ({"cpus": 10**30}, "cpus"),
        ({"cpus": "1"}, "cpus"),
        ({"cpus": True}, "cpus"),
        ({"cpus": 1.5}, "cpus"),
        ({"cpus": None}, "cpus"),
        ({"memory_mib": 63}, "memory_mib"),
        ({"memory_mib": 4 * 1024 * 1024 + 1}, "memory_mib"),
        ({"memory_mib": "256M"}, "memory_mib"),
        ({"disk_gib": 0}, "disk_gib"),
        ({"disk_gib": -5}, "disk_gib"),
        ({"disk_gib": 10**9}, "disk_gib"),
        ({"networks": []}, "networks"),
        ({"networks": "main"}, "networks"),
        ({"networks": [{"network": "main", "ipv4": "10.0.0.300"}]}, "networks.0.ipv4"),
        ({"networks": [{"network": "main", "ipv6": "10.0.0.3"}]}, "networks.0.ipv6"),
        ({"networks": [{"network": "main", "vlan": 3}]}, "networks.0.vlan"),
        ({"networks": [{"network": "main"}] * 9}, "networks"),
        ({"keys": ["a b"]}, "keys.0"),
        ({"labels": {"a\nb": "x"}}, "labels"),
        ({"labels": {"a": "x\ny"}}, "labels.a"),
        ({"labels": {"a": 1}}, "labels.a"),
        ({"labels": {f"k{index}": "" for index in range(65)}}, "labels"),
        ({"power": "on"}, "power"),
        ({"restart": "sometimes"}, "restart"),
        ({"stop_timeout_s": -1}, "stop_timeout_s"),
        ({"user_data": "x" * 65_537}, "user_data"),
        ({"user_data": "ü" * 40_000}, ""),
        ({"user_data_base64": "!!!"}, "user_data_base64"),
        ({"user_data": "x", "user_data_base64": "eA=="}, ""),
        ({"delete_protection": "yes"}, "delete_protection"),
        ({"delete_protection": 1}, "delete_protection"),
        ({"project": "a/b"}, "project"),
    ],
)
def test_a_bad_vm_is_refused_naming_the_field(ready: Service, change: dict[str, Any], field: str) -> None:
    before = ready.dump()
    problem = ready.problem("POST", "/v1/vms", 400, json={**VM, **change})
    assert problem["code"] == "invalid_input"
    assert problem.get("field", "") == field
    assert "\n" not in problem["detail"]
    assert ready.dump() == before


@pytest.mark.parametrize("missing", ["name", "image"])
def test_what_is_required_must_be_there(ready: Service, missing: str) -> None:
    body = {name: value for name, value in VM.items() if name != missing}
    problem = ready.problem("POST", "/v1/vms", 400, json=body)
    assert (problem["field"], problem["detail"]) == (missing, f"failed to read the body: {missing}: it is required")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"nonsense",
        b'{"name": "a", "name": "b", "image": "c"}',
        b'{"name": "a", "cpus": NaN}',
        b'{"name": "\\ud800", "image": "c"}',
        b"\xff\xfe{}",
        b'{"name": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_broken_json(ready: Service, body: bytes) -> None:
    before = ready.dump()
    problem = ready.problem("POST", "/v1/vms", 400, data=body, content_type="application/json")
    assert problem["code"] == "bad_json"
    assert ready.dump() == before


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"3", b"null"])
def test_json_that_is_no_object(ready: Service, body: bytes) -> None:
    problem = ready.problem("POST", "/v1/vms", 400, data=body, content_type="application/json")
    assert "not a JSON object" in problem["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type(ready: Service, content_type: str) -> None:
    problem = ready.problem("POST", "/v1/vms", 415, data=b"{}", content_type=content_type)
    assert problem["code"] == "unsupported_media_type"


def test_a_body_over_the_limit(ready: Service) -> None:
    body = b'{"name": "' + b"x" * 2 * 1024 * 1024 + b'"}'
    problem = ready.problem("POST", "/v1/vms", 413, data=body, content_type="application/json")
    assert problem["code"] == "body_too_large"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("limit=%2B5", "limit"),
        ("limit=1_0", "limit"),
        ("limit=5&limit=6", "limit"),
        ("sort=size", "sort"),
        ("page=xyz", "page"),
        ("label=novalue", "label.0"),
        ("colour=red", "colour"),
        ("name=%00", "name"),
        ("status=RUNNING", "status"),
    ],
)
def test_a_bad_query(service: Service, query: str, field: str) -> None:
    assert service.problem("GET", f"/v1/vms?{query}", 400)["field"] == field


@pytest.mark.parametrize("value", ["yes", "1", "True", ""])
def test_dry_run_is_true_or_false(ready: Service, value: str) -> None:
    assert ready.problem("POST", f"/v1/vms?dry_run={value}", 400, json=VM)["field"] == "dry_run"


@pytest.mark.parametrize(
    "path", ["/v1/vms/vm-none", "/v1/networks/x%00y", "/v1/keys/%F0%9F%98%80", "/v1/images/..", "/v1/hosts/a%0Ab"]
)
@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_unknown_ids(service: Service, method: str, path: str) -> None:
    options = {"json": {}} if method == "PATCH" else {}
    assert service.problem(method, path, 404, **options)["code"] == "not_found"


def test_unknown_paths_and_methods(service: Service) -> None:
    assert service.problem("GET", "/v1/volumes", 404)["code"] == "not_found"
    assert service.problem("GET", "/v1/vms/", 404)["code"] == "not_found"
    response = service.ask("PUT", "/v1/vms")
    assert response.status_code == 405
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
    response = service.ask("GET", "/v1/images/upload")
    assert (response.status_code, response.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ({"image": "none"}, "not_found"),
        ({"networks": [{"network": "none"}]}, "not_found"),
        ({"keys": ["none"]}, "not_found"),
    ],
)
def test_unknown_references(ready: Service, reference: dict[str, Any], code: str) -> None:
    assert ready.problem("POST", "/v1/vms", 404, json={**VM, **reference})["code"] == code


@pytest.mark.parametrize(
    "public_key",
    [
        "",
        "nonsense",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-dss " + PUBLIC_KEY.split()[1],
        "ssh-rsa " + PUBLIC_KEY.split()[1],
        PUBLIC_KEY + "\nssh-ed25519 second",
        'command="rm -rf /" ' + PUBLIC_KEY,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)
def test_a_bad_public_key(service: Service, public_key: str) -> None:
    problem = service.problem("POST", "/v1/keys", 400, json={"name": "k", "public_key": public_key})
    assert problem["field"] == "public_key"


@pytest.mark.parametrize("key", ["a b", "x" * 200, "\x7f"])
def test_a_bad_idempotency_key(ready: Service, key: str) -> None:
    problem = ready.problem("POST", "/v1/vms", 400, json=VM, headers={"Idempotency-Key": key})
    assert problem["field"] == "Idempotency-Key"
