"""Filters, order and pages of lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.api.service import PUBLIC_KEY, Service

NAMES = ["a", "b", "c", "d", "e", "f", "g"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Seven keys and one of another project; tests only read them."""
    service = Service(tmp_path_factory.mktemp("service"))
    for index, name in enumerate(reversed(NAMES)):
        labels = {"even": str(index % 2 == 0).lower(), "app": "x=y"}
        service.post("/v1/keys", {"name": name, "public_key": PUBLIC_KEY, "labels": labels})
    service.post("/v1/keys", {"name": "z", "public_key": PUBLIC_KEY, "project": "other"})
    yield service
    service.close()


def names(listing: Any) -> list[str]:
    return [item["name"] for item in listing["items"]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [*NAMES, "z"]),
        ("project=default", NAMES),
        ("project=other", ["z"]),
        ("project=none", []),
        ("name=c", ["c"]),
        ("label=even=true&project=default", ["a", "c", "e", "g"]),
        ("label=even=true&label=app=x=y&name=c", ["c"]),
        ("label=even=true&label=app=z", []),
        ("sort=-name&project=default", NAMES[::-1]),
        ("sort=created_at&project=default", NAMES[::-1]),
        ("sort=-created_at&project=default", NAMES),
        ("status=ready&name=a", ["a"]),
        ("status=deleting", []),
    ],
)
def test_filter_and_order(full: Service, query: str, expected: list[str]) -> None:
    listing = full.get(f"/v1/keys?{query}")
    if "created_at" in query:
        assert set(names(listing)) == set(expected)
        created = [item["created_at"] for item in listing["items"]]
        assert created == sorted(created, reverse="-created" in query)
    else:
        assert names(listing) == expected
    assert listing["next_page"] == ""


@pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-created_at"])
@pytest.mark.parametrize("limit", [1, 2, 3, 8, 100])
def test_pages_show_each_once(full: Service, sort: str, limit: int) -> None:
    seen: list[str] = []
    page = ""
    while True:
        listing = full.get(f"/v1/keys?sort={sort}&limit={limit}&page={page}")
        assert len(listing["items"]) <= limit
        seen += names(listing)
        page = listing["next_page"]
        if not page:
            break
    assert sorted(seen) == [*NAMES, "z"]
    assert seen == names(full.get(f"/v1/keys?sort={sort}"))


def test_pages_stay_right_while_objects_come(service: Service) -> None:
    for name in ("a", "b", "c", "d"):
        service.post("/v1/keys", {"name": name, "public_key": PUBLIC_KEY})
    first = service.get("/v1/keys?limit=2")
    service.post("/v1/keys", {"name": "a0", "public_key": PUBLIC_KEY})
    service.post("/v1/keys", {"name": "b0", "public_key": PUBLIC_KEY})
    second = service.get(f"/v1/keys?limit=2&page={first['next_page']}")
    assert names(first) + names(second) == ["a", "b", "b0", "c"]


@pytest.mark.parametrize("page", ["00", "ff" * 150, "c3"])
def test_any_page_name_is_a_place(full: Service, page: str) -> None:
    full.get(f"/v1/keys?page={page}")


def test_the_host_filter_of_vms(ready: Service, vm: Any) -> None:
    assert names(ready.get("/v1/vms?host=host-1")) == []
    assert names(ready.get("/v1/vms?status=scheduling")) == [vm["name"]]


def test_events_tell_of_each_change(ready: Service, vm: Any) -> None:
    path = f"/v1/vms/{vm['id']}"
    ready.ask("PATCH", path, json={"cpus": 2}, headers={"X-Request-Id": "req-1"})
    ready.ask("POST", f"{path}/actions/stop")
    ready.ask("DELETE", path)
    events = ready.get(f"/v1/events?about=vm&about_id={vm['id']}")["items"]
    assert [event["kind"] for event in events] == ["vm_created", "vm_updated", "vm_stop_asked", "vm_deleted"]
    assert events[1]["request_id"] == "req-1"
    assert {event["actor"] for event in events} == {"api"}
    behind = ready.get(f"/v1/events?about_id={vm['id']}&after={events[0]['id']}&limit=2")
    assert [event["id"] for event in behind["items"]] == [event["id"] for event in events[1:3]]
    rest = ready.get(f"/v1/events?about_id={vm['id']}&after={behind['next_page']}")
    assert [event["kind"] for event in rest["items"]] == ["vm_deleted"]
    assert ready.get("/v1/events?kind=key_created&limit=1")["items"][0]["about"] == "key"
