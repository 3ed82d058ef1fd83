"""Networks: what is chosen, what is refused, and that no two ever overlap."""

from __future__ import annotations

import itertools
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.unit.api.service import Service


def test_a_network_gets_a_free_prefix_and_vni(service: Service) -> None:
    response = service.ask("POST", "/v1/networks", json={"name": "main", "labels": {"a": "b"}})
    network = response.json
    assert network is not None
    assert response.status_code == 201
    assert response.headers["Location"] == f"/v1/networks/{network['id']}"
    assert response.headers["ETag"] == '"1"'
    assert ip_network(network["spec"]["ipv6_prefix"]).subnet_of(ip_network("fd00:1::/48"))  # type: ignore[arg-type]
    assert network["spec"]["vni"] >= 256
    assert network["status"] == {"word": "ready", "vms": 0, "hosts": []}
    assert service.get(f"/v1/networks/{network['id']}") == network


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"ipv4_subnet": "10.0.0.0/30"}, 400, "subnet_too_small"),
        ({"ipv4_subnet": "10.0.0.0/8"}, 400, "invalid_input"),
        ({"ipv4_subnet": "10.0.0.0/33"}, 400, "invalid_input"),
        ({"ipv4_subnet": "main"}, 400, "invalid_input"),
        ({"ipv4_subnet": "1" * 100_000}, 400, "invalid_input"),
        ({"ipv6_prefix": "fd00::/63"}, 400, "invalid_input"),
        ({"ipv6_prefix": "fd00::1/64"}, 400, "invalid_input"),
        ({"ipv4_subnet": "169.254.0.0/16"}, 409, "subnet_overlaps"),
        ({"ipv4_subnet": "127.0.0.0/24"}, 409, "subnet_overlaps"),
        ({"ipv6_prefix": "fe80::/64"}, 409, "subnet_overlaps"),
        ({"ipv4_subnet": "10.9.8.0/24"}, 409, "subnet_overlaps"),
        ({"ipv4_subnet": "10.9.0.0/16"}, 409, "subnet_overlaps"),
        ({"ipv6_prefix": "fd00:5::/64"}, 409, "subnet_overlaps"),
        ({"ipv4_subnet": "8.8.0.0/16"}, 409, "subnet_not_allowed"),
        ({"ipv6_prefix": "2001:db8::/64"}, 409, "subnet_not_allowed"),
        ({"name": "first"}, 409, "name_taken"),
    ],
)
def test_what_is_refused(service: Service, body: dict[str, Any], status: int, code: str) -> None:
    service.post("/v1/networks", {"name": "first", "ipv4_subnet": "10.9.8.0/24", "ipv6_prefix": "fd00:5::/64"})
    before = service.dump()
    problem = service.problem("POST", "/v1/networks", status, json={"name": "second", **body})
    assert problem["code"] == code
    assert len(problem["detail"]) < 300
    assert service.dump() == before


def test_the_same_name_in_another_project(service: Service) -> None:
    service.post("/v1/networks", {"name": "main"})
    service.post("/v1/networks", {"name": "main", "project": "other"})


def test_host_bits_of_a_subnet_are_cleared(service: Service) -> None:
    assert (
        service.post("/v1/networks", {"name": "n", "ipv4_subnet": "10.1.2.3/24"})["spec"]["ipv4_subnet"]
        == "10.1.2.0/24"
    )


def test_subnets_of_different_sizes_made_at_once_never_overlap(service: Service) -> None:
    subnets = ["10.0.0.0/16", "10.0.0.0/24", "10.0.128.0/17", "10.0.0.0/29", "10.0.130.0/24", "10.0.1.0/24"] * 2

    def create(index: int) -> None:
        response = service.ask("POST", "/v1/networks", json={"name": f"n{index}", "ipv4_subnet": subnets[index]})
        assert response.status_code in (201, 409), response.text

    service.in_parallel(len(subnets), create)
    made = [ip_network(item["spec"]["ipv4_subnet"]) for item in service.get("/v1/networks")["items"]]
    assert made
    assert not any(one.overlaps(other) for one, other in itertools.combinations(made, 2))


def test_names_made_at_once_are_given_once(service: Service) -> None:
    codes: list[int] = []
    service.in_parallel(8, lambda _: codes.append(service.ask("POST", "/v1/networks", json={"name": "n"}).status_code))
    assert sorted(codes) == [201] + [409] * 7


def test_the_prefixes_of_the_site_run_out(tmp_path: Path) -> None:
    service = Service(tmp_path, ula_prefix="fd00:1::/63")
    try:
        service.post("/v1/networks", {"name": "a"})
        assert service.problem("POST", "/v1/networks", 409, json={"name": "b"})["code"] == "exhausted"
        service.post("/v1/networks", {"name": "b", "ipv6_prefix": "fd00:2::/64"})
    finally:
        service.close()


def test_public_prefixes_of_the_site_are_allowed(tmp_path: Path) -> None:
    service = Service(tmp_path, ula_prefix="2001:db8:1::/48", public_prefixes=("198.51.100.0/24", "2001:db8:2::/48"))
    try:
        service.post("/v1/networks", {"name": "a"})
        service.post("/v1/networks", {"name": "b", "ipv6_prefix": "2001:db8:1:ff::/64"})
        service.post("/v1/networks", {"name": "c", "ipv6_prefix": "2001:db8:2::/64", "ipv4_subnet": "198.51.100.0/25"})
        body = {"name": "d", "ipv4_subnet": "198.51.100.0/23"}
        assert service.problem("POST", "/v1/networks", 409, json=body)["code"] == "subnet_overlaps"
        body = {"name": "d", "ipv6_prefix": "2001:db8:3::/64"}
        assert service.problem("POST", "/v1/networks", 409, json=body)["code"] == "subnet_not_allowed"
    finally:
        service.close()


def test_an_update_moves_the_name(service: Service) -> None:
    network = service.post("/v1/networks", {"name": "a"})
    path = f"/v1/networks/{network['id']}"
    service.post("/v1/networks", {"name": "b"})
    assert service.problem("PATCH", path, 409, json={"name": "b"})["code"] == "name_taken"
    changed = service.patch(path, {"name": "c", "egress": "none", "labels": {"x": "y"}})
    assert (changed["name"], changed["generation"], changed["spec"]["egress"]) == ("c", 2, "none")
    service.post("/v1/networks", {"name": "a"})
    assert service.problem("POST", "/v1/networks", 409, json={"name": "c"})["code"] == "name_taken"


def test_an_update_of_nothing_changes_nothing(service: Service) -> None:
    network = service.post("/v1/networks", {"name": "a"})
    before = service.dump()
    assert service.patch(f"/v1/networks/{network['id']}", {"name": "a"}) == network
    assert service.dump() == before


def test_spec_fields_that_cannot_change_are_refused(service: Service) -> None:
    network = service.post("/v1/networks", {"name": "a"})
    problem = service.problem("PATCH", f"/v1/networks/{network['id']}", 400, json={"ipv4_subnet": "10.0.0.0/24"})
    assert problem["field"] == "ipv4_subnet"


def test_deletes(service: Service) -> None:
    network = service.post("/v1/networks", {"name": "a", "delete_protection": True})
    path = f"/v1/networks/{network['id']}"
    assert service.problem("DELETE", path, 409)["code"] == "delete_protected"
    service.patch(path, {"delete_protection": False})
    response = service.ask("DELETE", path)
    assert response.status_code == 202
    assert response.json is not None
    assert response.json["status"]["word"] == "deleting"
    again = service.ask("DELETE", path)
    assert (again.status_code, again.json) == (202, response.json)
    assert service.problem("PATCH", path, 409, json={"name": "b"})["code"] == "being_deleted"
    assert service.problem("POST", "/v1/networks", 409, json={"name": "a"})["code"] == "name_taken"


def test_a_network_in_use_names_its_users(ready: Service, vm: Any) -> None:
    network = ready.get("/v1/networks")["items"][0]
    assert network["status"]["vms"] == 1
    problem = ready.problem("DELETE", f"/v1/networks/{network['id']}", 409)
    assert (problem["code"], problem["users"]) == ("in_use", [vm["id"]])


def test_a_vm_that_comes_during_a_delete_is_noticed(ready: Service) -> None:
    """The VM's transaction commits between the delete's look at all VMs and its own commit."""
    network_id = ready.get("/v1/networks")["items"][0]["id"]
    made: list[Any] = []

    def intrude(_: Any) -> None:
        ready.store.before_commit = lambda _: None
        made.append(ready.post("/v1/vms", {"name": "web1", "image": "tiny"}))

    ready.store.before_commit = intrude
    problem = ready.problem("DELETE", f"/v1/networks/{network_id}", 409)
    assert problem["users"] == [made[0]["id"]]


def test_a_network_that_goes_during_a_create_is_noticed(ready: Service) -> None:
    network_id = ready.get("/v1/networks")["items"][0]["id"]

    def intrude(_: Any) -> None:
        ready.store.before_commit = lambda _: None
        assert ready.ask("DELETE", f"/v1/networks/{network_id}").status_code == 202

    ready.store.before_commit = intrude
    assert ready.problem("POST", "/v1/vms", 409, json={"name": "a", "image": "tiny"})["code"] == "being_deleted"
    assert ready.get("/v1/vms")["items"] == []
