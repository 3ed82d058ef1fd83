"""What creating and changing a VM would write: references resolved, NICs and addresses picked. Only reads."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ucloud.api.failover import refuse_on_lost_host
from ucloud.api.migrations import refuse_while_migrating
from ucloud.api.nouns import IMAGE, KEY, NETWORK, changed_meta, find_named, new_meta, use
from ucloud.api.schemas.vm import VmCreate, VmNetwork, VmUpdate
from ucloud.api.site import Site
from ucloud.api.writes import Change, Read, create, update
from ucloud.errors import Conflict
from ucloud.ipam.claims import Taking, find_ipv4, is_taken, take
from ucloud.ipam.plan import check_fixed
from ucloud.model.devices import eui64_address
from ucloud.model.image import Image
from ucloud.model.meta import mac_of_nic
from ucloud.model.network import Network
from ucloud.model.vm import Nic, Power, Vm, VmSpec
from ucloud.store import keys
from ucloud.store.api import Put
from ucloud.store.claims import claims_of
from ucloud.system.identity import new_nic_id

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class _Found:
    """What the VM refers to, as just read."""

    image: Read[Image]
    networks: tuple[Read[Network], ...]
    key_ids: tuple[str, ...]
    taking: Taking


def plan_create(site: Site, vm_id: str, body: VmCreate) -> Change[Vm]:
    """Raises NotFound for unknown references, Conflict for what cannot be had."""
    found = _find(site, vm_id, body)
    vm = Vm(new_meta(site, "vm", body, vm_id), _new_spec(site, body, found))
    taking = found.taking.and_also(take(claims_of(vm), owner_id=vm_id, at=vm.meta.created_at))
    user_data = body.user_data_bytes()
    if user_data:
        taking = taking.and_also(Taking(writes=(Put(keys.secret_user_data_source(vm_id), user_data),)))
    return create(site, "vm", vm, taking, f"vm {vm.meta.name} was asked for")


def plan_update(site: Site, read: Read[Vm], body: VmUpdate) -> Change[Vm]:
    old, given = read.thing, body.given()
    names = ("cpus", "memory_mib", "disk_gib", "restart", "failover", "stop_timeout_s", "priority")
    changes = {name: given[name] for name in names if name in given}
    if changes.get("disk_gib", old.spec.disk_gib) < old.spec.disk_gib:
        raise Conflict(
            f"failed to change {old.meta.id}: its disk has {old.spec.disk_gib} GiB and can only grow",
            code="disk_cannot_shrink",
        )
    taking = Taking()
    if "keys" in given:
        changes["key_ids"], taking = _find_keys(site, old.meta.id, old.meta.project, given["keys"])
    taking = taking.and_also(_refuse_unsettled(site, old, changes))
    new = Vm(changed_meta(old.meta, given), replace(old.spec, **changes))
    change = update(site, "vm", read, new, kind="vm_updated", event=f"vm {new.meta.name} was changed")
    return change if change.would == "nothing" else change.with_taking(taking)


def _refuse_unsettled(site: Site, vm: Vm, changes: dict[str, Any]) -> Taking:
    """Raises Conflict for what cannot change while the VM is on its way, or its host is lost."""
    vm_id = vm.meta.id
    changed = {name for name, value in changes.items() if value != getattr(vm.spec, name)}
    if "failover" in changed:
        refuse_on_lost_host(site.view(), vm_id, "change the failover of", unless_confirmed=True)
    if "disk_gib" in changed:
        refuse_on_lost_host(site.view(), vm_id, "resize the disk of")
    if changed & {"cpus", "memory_mib", "disk_gib", "failover"}:
        return Taking((refuse_while_migrating(site, vm_id, "change"),))
    return Taking()


def _find(site: Site, vm_id: str, body: VmCreate) -> _Found:
    image = find_named(site, IMAGE, body.project, body.image)
    networks = tuple(find_named(site, NETWORK, body.project, wanted.network) for wanted in body.networks)
    key_ids, taking = _find_keys(site, vm_id, body.project, body.keys)
    for read in _distinct((image, *networks)):
        taking = taking.and_also(use(read, vm_id))
    return _Found(image, networks, key_ids, taking)


def _find_keys(site: Site, vm_id: str, project: str, wanted: Sequence[str]) -> tuple[tuple[str, ...], Taking]:
    reads = _distinct(find_named(site, KEY, project, reference) for reference in wanted)
    taking = Taking()
    for read in reads:
        taking = taking.and_also(use(read, vm_id))
    return tuple(read.thing.meta.id for read in reads), taking


def _distinct(reads: Iterable[Read[Any]]) -> list[Read[Any]]:
    return list({read.key: read for read in reads}.values())


def _new_spec(site: Site, body: VmCreate, found: _Found) -> VmSpec:
    return VmSpec(
        image_id=found.image.thing.meta.id,
        cpus=body.cpus,
        memory_mib=body.memory_mib,
        disk_gib=_disk_gib(body, found.image.thing),
        nics=_new_nics(site, body.networks, found.networks),
        key_ids=found.key_ids,
        user_data_bytes=len(body.user_data_bytes()),
        power=body.power,
        boots=1 if body.power is Power.RUNNING else 0,
        restart=body.restart,
        failover=body.failover,
        stop_timeout_s=body.stop_timeout_s,
        priority=body.priority,
    )


def _disk_gib(body: VmCreate, image: Image) -> int:
    least = max(1, -(-image.spec.virtual_size_bytes // _GIB))
    if body.disk_gib is not None and body.disk_gib < least:
        raise Conflict(
            f"failed to make vm {body.name}: image {image.meta.name} needs a disk of {least} GiB",
            hint=f"ask for disk_gib {least} or more",
            code="disk_too_small",
        )
    return body.disk_gib or least


def _new_nics(site: Site, wanted: Sequence[VmNetwork], networks: Sequence[Read[Network]]) -> tuple[Nic, ...]:
    ours: dict[str, set[str]] = {}  # by network: what NICs of this VM have, as nothing is claimed before the commit
    nics: list[Nic] = []
    for ask, read in zip(wanted, networks, strict=True):
        taken = ours.setdefault(read.thing.meta.id, set())
        nic = _new_nic(site, ask, read.thing, taken)
        taken |= {nic.ipv6, nic.ipv4, eui64_address(read.thing.spec.ipv6_prefix, nic.mac)}
        nics.append(nic)
    return tuple(nics)


def _new_nic(site: Site, ask: VmNetwork, network: Network, ours: set[str]) -> Nic:
    nic_id = new_nic_id()
    mac = mac_of_nic(nic_id)
    network_id, spec = network.meta.id, network.spec
    if ask.ipv6 is None:
        ipv6 = eui64_address(spec.ipv6_prefix, mac)
    else:
        ipv6 = _fixed(site, spec.ipv6_prefix, ask.ipv6, network, ours)
    ipv4 = ""
    if ask.ipv4 is not None:
        ipv4 = _fixed(site, spec.ipv4_subnet, ask.ipv4, network, ours)
    elif spec.ipv4_subnet:
        ipv4 = find_ipv4(site.store, network_id, spec.ipv4_subnet, ours, secrets.randbelow)
    return Nic(id=nic_id, network_id=network_id, mac=mac, ipv6=ipv6, ipv4=ipv4)


def _fixed(site: Site, subnet: str, address: str, network: Network, ours: set[str]) -> str:
    if not subnet:
        raise Conflict(
            f"failed to use {address}: network {network.meta.name} has no IPv4 subnet", code="address_not_in_subnet"
        )
    wanted = check_fixed(subnet, address)
    if wanted in ours or is_taken(site.store, network.meta.id, wanted):
        raise Conflict(
            f"failed to use {wanted}: it is taken in network {network.meta.name}",
            hint="leave it out to get a free one",
            code="address_taken",
        )
    return wanted
