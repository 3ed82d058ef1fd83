"""Objects as the API shows them: meta, spec, and a status computed from what the view holds. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ucloud.api.failover import failover_condition, takeover_of
from ucloud.api.host_status import host_status
from ucloud.config import SchedulerSection
from ucloud.model.condition import Condition
from ucloud.model.host import Host
from ucloud.model.image import Image
from ucloud.model.key import Key
from ucloud.model.meta import Meta
from ucloud.model.network import Network
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenVm
from ucloud.model.status import VmStatus, vm_status
from ucloud.model.vm import Vm
from ucloud.store.codec import to_plain
from ucloud.store.view import View

Thing = Vm | Network | Image | Key | Host
Document = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A view with the sums over it that lists need, made when first asked for."""

    view: View
    settings: SchedulerSection = field(default_factory=SchedulerSection)

    @cached_property
    def vms_of_network(self) -> Counter[str]:
        vms = (entry.value for entry in self.view.vms.values())
        return Counter(network_id for vm in vms for network_id in {nic.network_id for nic in vm.spec.nics})

    @cached_property
    def vms_of_image(self) -> Counter[str]:
        return Counter(entry.value.spec.image_id for entry in self.view.vms.values())

    @cached_property
    def placements_of_host(self) -> Mapping[str, list[Placement]]:
        found: dict[str, list[Placement]] = {}
        for entry in self.view.placements.values():
            found.setdefault(entry.value.host_id, []).append(entry.value)
        return found

    @cached_property
    def networks_seen(self) -> Mapping[str, list[Document]]:
        found: dict[str, list[Document]] = {}
        for (host_id, network_id), entry in sorted(self.view.seen_networks.items()):
            report = entry.value
            shown = {"host_id": host_id, "ready": report.ready, "reason": report.reason}
            found.setdefault(network_id, []).append(shown)
        return found


def document_of(thing: Thing, scene: Scene) -> Document:
    """The whole object as JSON values."""
    status, conditions = _STATUS_OF[type(thing)](thing, scene)
    return {
        **_shown_meta(thing.meta),
        "spec": to_plain(thing.spec),
        "status": status,
        "conditions": [to_plain(condition) for condition in conditions],
    }


def status_of_vm(vm: Vm, view: View) -> tuple[VmStatus, str, SeenVm | None]:
    """The VM's status, its host ("" for none) and that host's report."""
    entry = view.placements.get(vm.meta.id)
    placement = entry.value if entry else None
    host_id = placement.host_id if placement else ""
    report = view.seen_vms.get((host_id, vm.meta.id))
    seen = report.value if report else None
    migration = view.migrations.get(vm.meta.id)
    status = vm_status(
        vm,
        placement,
        seen,
        host_alive=host_id in view.alive,
        takeover=takeover_of(view, host_id),
        migration=migration.value if migration else None,
    )
    return status, host_id, seen


def _shown_meta(meta: Meta) -> Document:
    return {
        "id": meta.id,
        "name": meta.name,
        "project": meta.project,
        "labels": dict(meta.labels),
        "generation": meta.generation,
        "created_at": meta.created_at,
        "deleted_at": meta.deleted_at,
        "delete_protection": meta.delete_protection,
    }


def _vm(vm: Vm, scene: Scene) -> tuple[Document, tuple[Condition, ...]]:
    status, host_id, seen = status_of_vm(vm, scene.view)
    shown = {
        "word": status.word.value,
        "reason": status.reason,
        "pending": list(status.pending),
        "host_id": host_id,
        "boots": seen.boots if seen else 0,
        "restarts": seen.restarts if seen else 0,
        "started_at": seen.started_at if seen else "",
        "accelerator": seen.accelerator if seen else "",
        "machine_type": seen.machine_type if seen else "",
        "cpu_model": seen.cpu_model if seen else "",
        "qemu_version": seen.qemu_version if seen else "",
        "addresses": [address for nic in vm.spec.nics for address in (nic.ipv6, nic.ipv4) if address],
    }
    return shown, (*status.conditions, failover_condition(vm, scene.view))


def _ready_word(meta: Meta) -> str:
    return "deleting" if meta.deleted_at else "ready"


def _network(network: Network, scene: Scene) -> tuple[Document, tuple[Condition, ...]]:
    network_id = network.meta.id
    shown = {
        "word": _ready_word(network.meta),
        "vms": scene.vms_of_network[network_id],
        "hosts": scene.networks_seen.get(network_id, []),
    }
    return shown, ()


def _image(image: Image, scene: Scene) -> tuple[Document, tuple[Condition, ...]]:
    reports = scene.view.seen_hosts.items()
    shown = {
        "word": _ready_word(image.meta),
        "hosts": sorted(host_id for host_id, entry in reports if image.spec.digest in entry.value.images),
        "vms": scene.vms_of_image[image.meta.id],
    }
    return shown, ()


def _key(key: Key, _: Scene) -> tuple[Document, tuple[Condition, ...]]:
    return {"word": _ready_word(key.meta)}, ()


def _host(host: Host, scene: Scene) -> tuple[Document, tuple[Condition, ...]]:
    return host_status(host, scene.view, scene.settings, scene.placements_of_host.get(host.meta.id, [])), ()


_STATUS_OF: Mapping[type, Callable[[Any, Scene], tuple[Document, tuple[Condition, ...]]]] = {
    Vm: _vm,
    Network: _network,
    Image: _image,
    Key: _key,
    Host: _host,
}
