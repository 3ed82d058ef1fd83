"""The API process on real etcd: it starts, serves, survives kill -9 without half-made objects, and stops politely."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.etcd_server import Cluster, etcd_cluster
from tests.integration.api_server import Api, running
from ucloud.config import ApiSection, Config, HostSection, StoreSection, render_config
from ucloud.store import keys
from ucloud.store.claims import claims_of
from ucloud.store.codec import decode


@pytest.fixture(scope="module")
def etcd() -> Iterator[Cluster]:
    require("etcd")
    with etcd_cluster() as cluster:
        yield cluster


@pytest.fixture
def api(etcd: Cluster, tmp_path: Path) -> Iterator[Api]:
    files = StoreSection(
        endpoints=tuple(etcd.endpoints),
        ca_file=etcd.tls.ca_file,
        cert_file=etcd.tls.cert_file,
        key_file=etcd.tls.key_file,
    )
    settings = ApiSection(token_file=tmp_path / "token", body_limit_kib=64)
    config = Config(store=files, api=settings, host=HostSection(pool_directory=tmp_path / "pool"))
    (tmp_path / "ucloud.toml").write_text(render_config(config))
    with running(tmp_path, Path(__file__).with_name("etcd_api.py")) as api:
        yield api


def test_a_network_is_made_shown_and_deleted(api: Api) -> None:
    status, network = api.ask("POST", "/v1/networks", {"name": "one", "ipv4_subnet": "10.1.0.0/24"})
    assert status == 201
    path = f"/v1/networks/{network['id']}"
    assert api.ask("GET", path) == (200, network)
    assert [item["id"] for item in api.ask("GET", "/v1/networks?name=one")[1]["items"]] == [network["id"]]
    assert api.ask("DELETE", path)[1]["status"]["word"] == "deleting"
    assert [event["kind"] for event in api.ask("GET", f"/v1/events?about_id={network['id']}")[1]["items"]] == [
        "network_created",
        "network_deleted",
    ]
    assert api.stop() == 0


def test_a_chunked_body_is_read_and_limited(api: Api) -> None:
    json_type = {"Content-Type": "application/json"}
    status, network = api.ask("POST", "/v1/networks", iter([b'{"name"', b': "chunked"}']), json_type)
    assert (status, network["name"]) == (201, "chunked")
    status, problem = api.ask("POST", "/v1/networks", iter([b" " * 10_000] * 20), json_type)
    assert (status, problem["code"]) == (413, "body_too_large")


def test_kill_9_leaves_only_whole_objects(api: Api, etcd: Cluster) -> None:
    """Requests run while the process is killed and started again; the objects found have their claims, all of them."""
    stopping = threading.Event()

    def create(index: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            try:
                api.ask(
                    "POST", "/v1/networks", {"name": f"n{index}-{number}"}, {"Idempotency-Key": f"{index}-{number}"}
                )
            except (OSError, ValueError):
                continue

    threads = [threading.Thread(target=create, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        before = len(api.ask("GET", "/v1/networks?limit=1000")[1]["items"])
        while len(api.ask("GET", "/v1/networks?limit=1000")[1]["items"]) < before + 3:
            continue
        api.process.kill()
        api.process.wait()
        api.start()
    stopping.set()
    for thread in threads:
        thread.join()
    store = etcd.store()
    stored = {item.key: item for item in store.list(keys.ROOT).items}
    store.close()
    networks = [decode(item.value) for key, item in stored.items() if key.startswith(keys.specs("network"))]
    claimed = {claim for network in networks for claim in claims_of(network)}
    found = {key for kind in ("name", "vni", "prefix") for key in stored if key.startswith(keys.claims(kind))}
    assert claimed == found
    assert len({network.spec.vni for network in networks}) == len(networks)
