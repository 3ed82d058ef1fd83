"""VMs: what a create writes, what may change, and what start, stop and reboot want."""

from __future__ import annotations

import base64
import json
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.api.service import PUBLIC_KEY, Service
from ucloud.api.schemas.vm import VmDryRun
from ucloud.model.devices import eui64_address
from ucloud.model.seen import GuestState
from ucloud.store import keys
from ucloud.store.api import Put
from ucloud.store.codec import encode


def test_a_create_claims_everything(ready: Service, vm: Any) -> None:
    spec = vm["spec"]
    nic = spec["nics"][0]
    network = ready.get("/v1/networks")["items"][0]
    assert ip_address(nic["ipv4"]) in ip_network("10.0.0.0/24")
    assert ip_address(nic["ipv6"]) in ip_network(network["spec"]["ipv6_prefix"])
    assert nic["mac"].startswith("02:")
    assert (spec["image_id"], spec["disk_gib"], spec["power"], spec["boots"]) == ("image-tiny", 1, "running", 1)
    assert vm["status"]["word"] == "scheduling"
    assert vm["status"]["addresses"] == [nic["ipv6"], nic["ipv4"]]
    stored = ready.dump()
    claims = [keys.claim_nic(nic["id"])]
    claims += [keys.claim_address(network["id"], nic[kind]) for kind in ("ipv4", "ipv6")]
    assert set(claims) <= stored.keys()


def test_names_of_vms_need_not_be_unique(ready: Service, vm: Any) -> None:
    assert ready.post("/v1/vms", {"name": vm["name"], "image": "tiny"})["id"] != vm["id"]


def test_a_stopped_vm_was_never_booted(ready: Service) -> None:
    vm = ready.post("/v1/vms", {"name": "a", "image": "tiny", "power": "stopped"})
    assert (vm["spec"]["boots"], vm["status"]["word"]) == (0, "stopped")
    started = ready.post(f"/v1/vms/{vm['id']}/actions/start", {}, status=202)
    assert (started["spec"]["boots"], started["spec"]["power"]) == (1, "running")


def test_references_by_id(ready: Service) -> None:
    network = ready.get("/v1/networks")["items"][0]["id"]
    key = ready.get("/v1/keys")["items"][0]["id"]
    body = {"name": "a", "image": "image-tiny", "networks": [{"network": network}], "keys": [key, "mine"]}
    assert ready.post("/v1/vms", body)["spec"]["key_ids"] == [key]


def test_references_of_another_project_are_not_found(ready: Service) -> None:
    problem = ready.problem("POST", "/v1/vms", 404, json={"name": "a", "image": "image-tiny", "project": "other"})
    assert "project other" in problem["detail"]


def test_two_nics_in_one_network(ready: Service) -> None:
    vm = ready.post("/v1/vms", {"name": "a", "image": "tiny", "networks": [{"network": "main"}, {"network": "main"}]})
    assert len({nic["ipv4"] for nic in vm["spec"]["nics"]}) == 2


def test_fixed_addresses(ready: Service) -> None:
    prefix = ready.get("/v1/networks")["items"][0]["spec"]["ipv6_prefix"].removesuffix("/64")
    wanted = {"network": "main", "ipv4": "10.0.0.77", "ipv6": f"{prefix}77"}
    vm = ready.post("/v1/vms", {"name": "a", "image": "tiny", "networks": [wanted]})
    assert vm["status"]["addresses"] == [f"{prefix}77", "10.0.0.77"]
    for again in ({"ipv4": "10.0.0.77"}, {"ipv6": f"{prefix}77"}):
        body = {"name": "b", "image": "tiny", "networks": [{"network": "main", **again}]}
        assert ready.problem("POST", "/v1/vms", 409, json=body)["code"] == "address_taken"
    twice = {"name": "c", "image": "tiny", "networks": [{"network": "main", "ipv4": "10.0.0.78"}] * 2}
    assert ready.problem("POST", "/v1/vms", 409, json=twice)["code"] == "address_taken"


def test_the_slaac_address_of_a_nic_is_its_own_also_beside_a_fixed_one(ready: Service) -> None:
    """The firewall lets a guest use both, so nobody else may get either."""
    prefix = ready.get("/v1/networks")["items"][0]["spec"]["ipv6_prefix"]
    fixed = {"network": "main", "ipv6": prefix.replace("/64", "77")}
    first = ready.post("/v1/vms", {"name": "a", "image": "tiny", "networks": [fixed]})
    slaac = eui64_address(prefix, first["spec"]["nics"][0]["mac"])
    body = {"name": "b", "image": "tiny", "networks": [{"network": "main", "ipv6": slaac}]}
    assert ready.problem("POST", "/v1/vms", 409, json=body)["code"] == "address_taken"


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"ipv4": "10.0.1.5"}, "address_not_in_subnet"),
        ({"ipv4": "10.0.0.1"}, "address_reserved"),
        ({"ipv4": "10.0.0.255"}, "address_reserved"),
        ({"ipv6": "2001:db8::5"}, "address_not_in_subnet"),
    ],
)
def test_addresses_that_cannot_be_had(ready: Service, wanted: dict[str, str], code: str) -> None:
    body = {"name": "a", "image": "tiny", "networks": [{"network": "main", **wanted}]}
    assert ready.problem("POST", "/v1/vms", 409, json=body)["code"] == code


def test_an_address_in_a_network_without_ipv4(ready: Service) -> None:
    ready.post("/v1/networks", {"name": "six"})
    body = {"name": "a", "image": "tiny", "networks": [{"network": "six", "ipv4": "10.0.0.5"}]}
    assert ready.problem("POST", "/v1/vms", 409, json=body)["code"] == "address_not_in_subnet"
    assert ready.post("/v1/vms", {**body, "networks": [{"network": "six"}]})["spec"]["nics"][0]["ipv4"] == ""


def test_creates_at_once_never_share_an_address_and_the_last_is_told(ready: Service) -> None:
    ready.post("/v1/networks", {"name": "small", "ipv4_subnet": "10.5.0.0/29"})
    answers: list[Any] = []

    def create(index: int) -> None:
        body = {"name": f"vm{index}", "image": "tiny", "networks": [{"network": "small"}]}
        answers.append(ready.ask("POST", "/v1/vms", json=body))

    ready.in_parallel(8, create)
    made = [answer.json["spec"]["nics"][0] for answer in answers if answer.status_code == 201]
    refused = [answer.json["code"] for answer in answers if answer.status_code != 201]
    assert sorted(nic["ipv4"] for nic in made) == [f"10.5.0.{last}" for last in range(2, 7)]
    assert refused == ["exhausted"] * 3
    assert len({nic["mac"] for nic in made}) == 5


def test_a_disk_smaller_than_its_image(ready: Service) -> None:
    ready.seed_image("big", virtual_size_bytes=3 * 2**30 + 1)
    assert ready.post("/v1/vms", {"name": "a", "image": "big"})["spec"]["disk_gib"] == 4
    problem = ready.problem("POST", "/v1/vms", 409, json={"name": "a", "image": "big", "disk_gib": 3})
    assert (problem["code"], "4 GiB" in problem["detail"]) == ("disk_too_small", True)


@pytest.mark.parametrize(
    "given", [{"user_data": "#!secret"}, {"user_data_base64": base64.b64encode(b"#!secret").decode()}]
)
def test_user_data_is_kept_but_never_shown(ready: Service, given: dict[str, str]) -> None:
    vm = ready.post("/v1/vms", {"name": "a", "image": "tiny", **given})
    assert vm["spec"]["user_data_bytes"] == 8
    assert ready.dump()[keys.secret_user_data_source(vm["id"])].value == b"#!secret"
    for path in (f"/v1/vms/{vm['id']}", "/v1/vms", "/v1/events"):
        assert "secret" not in ready.ask("GET", path).text


def test_updates(ready: Service, vm: Any) -> None:
    path = f"/v1/vms/{vm['id']}"
    ready.post("/v1/keys", {"name": "other", "public_key": PUBLIC_KEY})
    body = {"name": "web2", "cpus": 4, "memory_mib": 1024.0, "disk_gib": 5, "keys": ["other"], "restart": "never"}
    changed = ready.patch(path, body)
    spec = changed["spec"]
    assert (changed["name"], changed["generation"], spec["cpus"], spec["memory_mib"]) == ("web2", 2, 4, 1024)
    assert spec["key_ids"] != vm["spec"]["key_ids"]
    assert ready.problem("PATCH", path, 409, json={"disk_gib": 4})["code"] == "disk_cannot_shrink"
    assert ready.problem("PATCH", path, 400, json={"image": "tiny"})["field"] == "image"
    assert ready.problem("PATCH", path, 400, json={"cpus": None})["field"] == "cpus"


def test_a_change_of_a_running_vm_says_what_is_pending(ready: Service, vm: Any) -> None:
    ready.seed(
        Put(keys.placement(vm["id"]), encode(samples.PLACEMENT)),
        Put(keys.alive("host-1"), encode(samples.LIFE_SIGN)),
    )
    ready.seed_seen(vm, GuestState.RUNNING, boots=1)
    changed = ready.patch(f"/v1/vms/{vm['id']}", {"memory_mib": 1024})
    assert changed["status"]["pending"] == ["memory_mib"]


def test_a_key_in_use_cannot_go(ready: Service, vm: Any) -> None:
    key = ready.get("/v1/keys")["items"][0]["id"]
    assert ready.problem("DELETE", f"/v1/keys/{key}", 409)["users"] == [vm["id"]]
    ready.patch(f"/v1/vms/{vm['id']}", {"keys": []})
    assert ready.ask("DELETE", f"/v1/keys/{key}").status_code == 202
    assert ready.problem("DELETE", "/v1/images/image-tiny", 409)["users"] == [vm["id"]]


def test_start_stop_reboot(ready: Service, vm: Any) -> None:
    actions = f"/v1/vms/{vm['id']}/actions"
    again = ready.post(f"{actions}/start", None, status=202)
    assert again["generation"] == 1
    stopped = ready.post(f"{actions}/stop", {"timeout_s": 5}, status=202)["spec"]
    assert (stopped["power"], stopped["boots"], stopped["stop_timeout_s"]) == ("stopped", 1, 5)
    assert ready.problem("POST", f"{actions}/reboot", 409)["code"] == "vm_stopped"
    assert ready.post(f"{actions}/start", {}, status=202)["spec"]["boots"] == 2
    assert ready.post(f"{actions}/reboot", {}, status=202)["spec"]["boots"] == 3
    assert ready.problem("POST", f"{actions}/start", 400, json={"now": True})["field"] == "now"
    assert ready.problem("POST", f"{actions}/pause", 404)["code"] == "not_found"


@pytest.mark.parametrize("state", [GuestState.STOPPED, GuestState.CRASHED, GuestState.FAILED])
def test_start_boots_a_guest_that_ended_by_itself(ready: Service, vm: Any, state: GuestState) -> None:
    ready.seed(
        Put(keys.placement(vm["id"]), encode(samples.PLACEMENT)),
        Put(keys.alive("host-1"), encode(samples.LIFE_SIGN)),
    )
    ready.seed_seen(vm, state, boots=1)
    path = f"/v1/vms/{vm['id']}/actions/start"
    assert ready.post(path, {}, status=202)["spec"]["boots"] == 2
    assert ready.post(path, {}, status=202)["spec"]["boots"] == 2, "the second start is under way already"


def test_deletes(ready: Service, vm: Any) -> None:
    path = f"/v1/vms/{vm['id']}"
    deleted = ready.ask("DELETE", path).json
    assert deleted is not None
    assert deleted["status"]["word"] == "deleting"
    assert ready.problem("POST", f"{path}/actions/start", 409)["code"] == "being_deleted"
    network = ready.get("/v1/networks")["items"][0]["id"]
    assert ready.problem("DELETE", f"/v1/networks/{network}", 409)["users"] == [vm["id"]]


def test_the_log_comes_from_the_host(ready: Service, vm: Any) -> None:
    path = f"/v1/vms/{vm['id']}/log"
    assert ready.problem("GET", path, 409)["code"] == "no_host"
    ready.seed(
        Put(keys.placement(vm["id"]), encode(samples.PLACEMENT)),
        Put(keys.seen("host-1", "host", "host-1"), encode(samples.SEEN_HOST)),
    )
    assert ready.problem("GET", path, 404)["code"] == "not_found"
    ready.door.logs[vm["id"]] = b"booting\xff\nlogin:"
    response = ready.ask("GET", f"{path}?bytes=6")
    assert (response.status_code, response.data, response.mimetype) == (200, b"login:", "text/plain")


def test_the_placement_is_explained(ready: Service, vm: Any) -> None:
    path = f"/v1/vms/{vm['id']}/placement"
    assert ready.problem("GET", path, 404)["hint"]
    ready.seed(Put(keys.placement(vm["id"]), encode(samples.PLACEMENT)))
    decision = ready.get(path)["decision"]
    assert decision["refused"] == {"memory": 1}
    assert decision["scores"][0]["host_id"] == "host-1"


def test_the_console_is_at_the_stream_process(ready: Service, vm: Any) -> None:
    assert ready.get(f"/v1/vms/{vm['id']}/console") == {"url": f"ws://127.0.0.1:8701/v1/vms/{vm['id']}/console"}


def test_a_dry_run_writes_nothing_and_tells_the_placement(ready: Service) -> None:
    host = ready.post("/v1/hosts", {"name": "h1", "id": "host-1"})
    before = ready.dump()
    told = ready.post("/v1/vms?dry_run=true", {"name": "a", "image": "tiny", "user_data": "x"}, status=200)
    assert (told["dry_run"], told["would"], told["object"]["name"]) == (True, "create", "a")
    assert (told["placement"]["host_id"], host["status"]["word"]) == ("", "new")
    assert told["placement"]["decision"]["refused"]
    assert "id" not in told["object"]
    VmDryRun.model_validate_json(json.dumps(told))
    assert ready.dump() == before


@pytest.mark.parametrize(
    ("method", "path", "body", "would"),
    [
        ("PATCH", "", {"cpus": 2}, "update"),
        ("PATCH", "", {}, "nothing"),
        ("DELETE", "", None, "delete"),
        ("POST", "/actions/stop", None, "stop"),
        ("POST", "/actions/start", None, "nothing"),
        ("POST", "/actions/reboot", {}, "reboot"),
    ],
)
def test_dry_runs(ready: Service, vm: Any, method: str, path: str, body: Any, would: str) -> None:
    before = ready.dump()
    response = ready.ask(method, f"/v1/vms/{vm['id']}{path}?dry_run=true", json=body)
    assert (response.status_code, (response.json or {})["would"]) == (200, would)
    assert ready.dump() == before
