"""What goes over the wire matches the dataclasses, and the document matches the routes."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import pytest
from pydantic import BaseModel

from tests.unit import samples
from tests.unit.api.service import Service
from ucloud.api.documents import openapi
from ucloud.api.objects import Scene, document_of
from ucloud.api.routes import ROUTES
from ucloud.api.schemas import event, failover, host, image, key, migration, network, objects, placement, vm
from ucloud.model.condition import Condition
from ucloud.model.event import Event
from ucloud.model.guard import Takeover
from ucloud.model.host import HostSpec
from ucloud.model.image import ImageSpec
from ucloud.model.key import KeySpec
from ucloud.model.meta import Meta
from ucloud.model.migration import Migration, MigrationRequest, SeenMigration
from ucloud.model.network import NetworkSpec
from ucloud.model.placement import Decision, Placement, Refusal, Score
from ucloud.model.seen import SeenPool
from ucloud.model.vm import Nic, VmSpec
from ucloud.store.view import View


@pytest.mark.parametrize(
    ("model", "dataclass"),
    [
        (vm.VmSpecShown, VmSpec),
        (vm.NicShown, Nic),
        (network.NetworkSpecShown, NetworkSpec),
        (image.ImageSpecShown, ImageSpec),
        (key.KeySpecShown, KeySpec),
        (host.HostSpecShown, HostSpec),
        (event.EventShown, Event),
        (placement.PlacementShown, Placement),
        (placement.DecisionShown, Decision),
        (placement.RefusalShown, Refusal),
        (placement.ScoreShown, Score),
        (objects.ConditionShown, Condition),
        (host.PoolShown, SeenPool),
        (failover.TakeoverShown, Takeover),
        (migration.MigrationRecordShown, Migration),
        (migration.MigrationRequestShown, MigrationRequest),
        (migration.MigrationPartShown, SeenMigration),
    ],
)
def test_answers_have_the_fields_of_the_model(model: type[BaseModel], dataclass: Any) -> None:
    assert set(model.model_fields) == {field.name for field in fields(dataclass)}


def test_objects_have_all_of_meta() -> None:
    assert {field.name for field in fields(Meta)} < set(objects.ObjectShown.model_fields)


@pytest.mark.parametrize(
    ("thing", "model"),
    [
        (samples.VM, vm.VmShown),
        (samples.NETWORK, network.NetworkShown),
        (samples.IMAGE, image.ImageShown),
        (samples.KEY, key.KeyShown),
        (samples.HOST, host.HostShown),
    ],
)
def test_documents_fit_their_models(thing: Any, model: type[BaseModel]) -> None:
    model.model_validate_json(json.dumps(document_of(thing, Scene(View(1)))))


def test_create_defaults_are_those_of_the_model() -> None:
    defaults = {field.name: field.default for field in fields(VmSpec)}
    for name in ("power", "restart", "failover", "stop_timeout_s"):
        assert vm.VmCreate.model_fields[name].default == defaults[name]
    assert network.NetworkCreate.model_fields["egress"].default == NetworkSpec.__dataclass_fields__["egress"].default


def test_every_route_is_documented_and_every_reference_resolves() -> None:
    document = openapi()
    documented = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert documented == {(route.method, route.path.replace("<id>", "{id}")) for route in ROUTES}
    schemas = document["components"]["schemas"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))
    assert all(operation["summary"] for item in document["paths"].values() for operation in item.values())


def test_the_document_is_served(service: Service) -> None:
    assert service.get("/v1/openapi.json") == openapi()


def _references(part: Any) -> list[str]:
    if isinstance(part, dict):
        found = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return found + [reference for value in part.values() for reference in _references(value)]
    if isinstance(part, list):
        return [reference for value in part for reference in _references(value)]
    return []
