"""Networks: a VNI, a /64 and perhaps an IPv4 subnet, none of which any other network has."""

from __future__ import annotations

import secrets
from dataclasses import replace

from ucloud.api.answers import Answer
from ucloud.api.nouns import (
    NETWORK,
    Way,
    change_object,
    changed_meta,
    delete_object,
    get_object,
    list_objects,
    new_meta,
    read_for_change,
)
from ucloud.api.requests import read_preconditions
from ucloud.api.schemas.network import NetworkCreate, NetworkUpdate
from ucloud.api.schemas.parameters import ListQuery, ObjectPath, PostHeaders, WriteQuery
from ucloud.api.site import Site
from ucloud.api.writes import Change, create, refuse_taken, update
from ucloud.ipam.claims import guard_subnets, take
from ucloud.ipam.plan import check_free, parse_ipv4_subnet, parse_ipv6_prefix, pick_ipv6_prefix, pick_vni
from ucloud.model.network import Network, NetworkSpec
from ucloud.model.vm import Vm
from ucloud.store import keys
from ucloud.store.claims import claims_of
from ucloud.store.codec import decode_as
from ucloud.system.identity import new_id


def list_networks(site: Site, query: ListQuery) -> Answer:
    """List networks."""
    return list_objects(site, NETWORK, query)


def get_network(site: Site, path: ObjectPath) -> Answer:
    """Show a network."""
    return get_object(site, NETWORK, path.id)


def create_network(site: Site, query: WriteQuery, header: PostHeaders, body: NetworkCreate) -> Answer:
    """Create a network."""
    conditions = read_preconditions(header.idempotency_key, body.project, body.digest_bytes())
    network_id = new_id("network")
    way = Way(conditions, query.dry_run, status=201, located=True)
    return change_object(site, NETWORK, way, lambda: _plan_create(site, network_id, body))


def update_network(site: Site, path: ObjectPath, query: WriteQuery, body: NetworkUpdate) -> Answer:
    """Change a network's name, labels, delete protection or egress."""
    way = Way(read_preconditions(None, ""), query.dry_run)

    def plan() -> Change[Network]:
        read = read_for_change(site, NETWORK, path.id, way.conditions)
        old, given = read.thing, body.given()
        spec = replace(old.spec, egress=given.get("egress", old.spec.egress))
        new = Network(changed_meta(old.meta, given), spec)
        refuse_taken(site, "network", new.meta)
        return update(site, "network", read, new, kind="network_updated", event=f"network {new.meta.name} was changed")

    return change_object(site, NETWORK, way, plan)


def delete_network(site: Site, path: ObjectPath, query: WriteQuery) -> Answer:
    """Delete a network that no VM uses."""
    way = Way(read_preconditions(None, ""), query.dry_run, status=202)
    return delete_object(site, NETWORK, path.id, way, _uses)


def _uses(vm: Vm, network_id: str) -> bool:
    return any(nic.network_id == network_id for nic in vm.spec.nics)


def _plan_create(site: Site, network_id: str, body: NetworkCreate) -> Change[Network]:
    meta = new_meta(site, "network", body, network_id)
    refuse_taken(site, "network", meta)
    guard = guard_subnets(site.store, owner_id=network_id)
    others = [decode_as(Network, item.value) for item in site.store.list(keys.specs("network")).items]
    network = Network(meta, _choose_spec(site, body, others))
    taking = take(claims_of(network), owner_id=network_id, at=meta.created_at).and_also(guard)
    return create(site, "network", network, taking, f"network {meta.name} was made")


def _choose_spec(site: Site, body: NetworkCreate, others: list[Network]) -> NetworkSpec:
    taken = [
        (subnet, f"network {other.meta.id}")
        for other in others
        for subnet in (other.spec.ipv6_prefix, other.spec.ipv4_subnet)
        if subnet
    ]
    settings = site.config.network
    public = (*settings.public_prefixes, settings.ula_prefix)
    if body.ipv6_prefix is None:
        used = [other.spec.ipv6_prefix for other in others]
        prefix = pick_ipv6_prefix(settings.ula_prefix, used, secrets.randbelow)
    else:
        prefix = parse_ipv6_prefix(body.ipv6_prefix)
        check_free(prefix, taken, field="ipv6_prefix", public=public)
    subnet = ""
    if body.ipv4_subnet is not None:
        parsed = parse_ipv4_subnet(body.ipv4_subnet)
        check_free(parsed, taken, field="ipv4_subnet", public=public)
        subnet = str(parsed)
    vni = pick_vni({other.spec.vni for other in others}, secrets.randbelow)
    return NetworkSpec(vni=vni, ipv6_prefix=str(prefix), ipv4_subnet=subnet, egress=body.egress)
