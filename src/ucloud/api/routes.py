"""The whole API on one screen. ``binding`` makes views of the routes, ``documents`` the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel

from ucloud.api import (
    events,
    failover,
    health,
    host_actions,
    hosts,
    images,
    imports,
    migrations,
    networks,
    sshkeys,
    vm_actions,
    vms,
)
from ucloud.api.answers import NDJSON, TEXT, Answer
from ucloud.api.schemas import event, host, image, key, migration, network, placement, vm
from ucloud.api.schemas import failover as failover_schema
from ucloud.api.schemas import health as health_schema


@dataclass(frozen=True, slots=True)
class Route:
    """``shows`` is the model of the answer with ``status``; ``tries`` that of a dry run; ``octets``: a raw body."""

    method: str
    path: str
    handler: Callable[..., Answer]
    shows: type[BaseModel] | None
    status: int = 200
    tries: type[BaseModel] | None = None
    content_type: str = "application/json"
    open: bool = False
    octets: bool = False
    body_required: bool = True


V, N, K, I, H = vm, network, key, image, host  # noqa: E741

ROUTES = (
    Route("GET", "/v1/health", health.get_health, health_schema.HealthShown, open=True),
    Route("GET", "/v1/version", health.get_version, health_schema.VersionShown, open=True),
    Route("GET", "/v1/vms", vms.list_vms, V.VmList),
    Route("POST", "/v1/vms", vms.create_vm, V.VmShown, 201, V.VmDryRun),
    Route("GET", "/v1/vms/<id>", vms.get_vm, V.VmShown),
    Route("PATCH", "/v1/vms/<id>", vms.update_vm, V.VmShown, 200, V.VmDryRun),
    Route("DELETE", "/v1/vms/<id>", vms.delete_vm, V.VmShown, 202, V.VmDryRun),
    Route("POST", "/v1/vms/<id>/actions/start", vm_actions.start_vm, V.VmShown, 202, V.VmDryRun, body_required=False),
    Route("POST", "/v1/vms/<id>/actions/stop", vm_actions.stop_vm, V.VmShown, 202, V.VmDryRun, body_required=False),
    Route("POST", "/v1/vms/<id>/actions/reboot", vm_actions.reboot_vm, V.VmShown, 202, V.VmDryRun, body_required=False),
    Route(
        "POST", "/v1/vms/<id>/actions/migrate", migrations.migrate_vm, V.VmShown, 202, V.VmDryRun, body_required=False
    ),
    Route(
        "POST",
        "/v1/vms/<id>/actions/cancel-migration",
        migrations.cancel_migration,
        V.VmShown,
        202,
        V.VmDryRun,
        body_required=False,
    ),
    Route("GET", "/v1/vms/<id>/migration", migrations.get_migration, migration.MigrationShown),
    Route("GET", "/v1/vms/<id>/placement", vms.get_placement, placement.PlacementShown),
    Route("GET", "/v1/vms/<id>/log", vms.get_log, None, content_type=TEXT),
    Route("GET", "/v1/vms/<id>/console", vms.get_console, V.ConsoleShown),
    Route("GET", "/v1/networks", networks.list_networks, N.NetworkList),
    Route("POST", "/v1/networks", networks.create_network, N.NetworkShown, 201, N.NetworkDryRun),
    Route("GET", "/v1/networks/<id>", networks.get_network, N.NetworkShown),
    Route("PATCH", "/v1/networks/<id>", networks.update_network, N.NetworkShown, 200, N.NetworkDryRun),
    Route("DELETE", "/v1/networks/<id>", networks.delete_network, N.NetworkShown, 202, N.NetworkDryRun),
    Route("GET", "/v1/keys", sshkeys.list_keys, K.KeyList),
    Route("POST", "/v1/keys", sshkeys.create_key, K.KeyShown, 201, K.KeyDryRun),
    Route("GET", "/v1/keys/<id>", sshkeys.get_key, K.KeyShown),
    Route("PATCH", "/v1/keys/<id>", sshkeys.update_key, K.KeyShown, 200, K.KeyDryRun),
    Route("DELETE", "/v1/keys/<id>", sshkeys.delete_key, K.KeyShown, 202, K.KeyDryRun),
    Route("GET", "/v1/images", images.list_images, I.ImageList),
    Route("POST", "/v1/images", imports.import_image, None, 200, I.ImageDryRun, content_type=NDJSON),
    Route("POST", "/v1/images/upload", images.upload_image, I.ImageShown, 201, I.ImageDryRun, octets=True),
    Route("GET", "/v1/images/<id>", images.get_image, I.ImageShown),
    Route("PATCH", "/v1/images/<id>", images.update_image, I.ImageShown, 200, I.ImageDryRun),
    Route("DELETE", "/v1/images/<id>", images.delete_image, I.ImageShown, 202, I.ImageDryRun),
    Route("GET", "/v1/hosts", hosts.list_hosts, H.HostList),
    Route("POST", "/v1/hosts", hosts.create_host, H.HostShown, 201, H.HostDryRun),
    Route("GET", "/v1/hosts/<id>", hosts.get_host, H.HostShown),
    Route("PATCH", "/v1/hosts/<id>", hosts.update_host, H.HostShown, 200, H.HostDryRun),
    Route("DELETE", "/v1/hosts/<id>", hosts.delete_host, H.HostShown, 202, H.HostDryRun),
    Route(
        "POST",
        "/v1/hosts/<id>/actions/drain",
        host_actions.drain_host,
        H.HostShown,
        202,
        H.HostDryRun,
        body_required=False,
    ),
    Route(
        "POST",
        "/v1/hosts/<id>/actions/undrain",
        host_actions.undrain_host,
        H.HostShown,
        202,
        H.HostDryRun,
        body_required=False,
    ),
    Route(
        "POST",
        "/v1/hosts/<id>/actions/confirm-off",
        host_actions.confirm_off,
        H.HostShown,
        202,
        H.HostDryRun,
        body_required=False,
    ),
    Route("GET", "/v1/failover", failover.get_failover, failover_schema.FailoverShown),
    Route("GET", "/v1/events", events.list_events, event.EventList),
)
