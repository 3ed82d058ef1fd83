"""Public ssh keys."""

from __future__ import annotations

import base64
import hashlib

from ucloud.api.answers import Answer
from ucloud.api.nouns import (
    KEY,
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
from ucloud.api.schemas.key import KeyCreate, KeyUpdate
from ucloud.api.schemas.parameters import ListQuery, ObjectPath, PostHeaders, WriteQuery
from ucloud.api.site import Site
from ucloud.api.writes import Change, create, refuse_taken, update
from ucloud.ipam.claims import take
from ucloud.model.key import Key, KeySpec
from ucloud.store.claims import claims_of
from ucloud.system.identity import new_id


def list_keys(site: Site, query: ListQuery) -> Answer:
    """List keys."""
    return list_objects(site, KEY, query)


def get_key(site: Site, path: ObjectPath) -> Answer:
    """Show a key."""
    return get_object(site, KEY, path.id)


def create_key(site: Site, query: WriteQuery, header: PostHeaders, body: KeyCreate) -> Answer:
    """Add a public key."""
    conditions = read_preconditions(header.idempotency_key, body.project, body.digest_bytes())
    key_id = new_id("key")
    way = Way(conditions, query.dry_run, status=201, located=True)
    return change_object(site, KEY, way, lambda: _plan_create(site, key_id, body))


def update_key(site: Site, path: ObjectPath, query: WriteQuery, body: KeyUpdate) -> Answer:
    """Change a key's name, labels or delete protection."""
    way = Way(read_preconditions(None, ""), query.dry_run)

    def plan() -> Change[Key]:
        read = read_for_change(site, KEY, path.id, way.conditions)
        new = Key(changed_meta(read.thing.meta, body.given()), read.thing.spec)
        refuse_taken(site, "key", new.meta)
        return update(site, "key", read, new, kind="key_updated", event=f"key {new.meta.name} was changed")

    return change_object(site, KEY, way, plan)


def delete_key(site: Site, path: ObjectPath, query: WriteQuery) -> Answer:
    """Delete a key that no VM names."""
    way = Way(read_preconditions(None, ""), query.dry_run, status=202)
    return delete_object(site, KEY, path.id, way, lambda vm, key_id: key_id in vm.spec.key_ids)


def fingerprint(public_key: str) -> str:
    """As ssh-keygen prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split(" ")[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _plan_create(site: Site, key_id: str, body: KeyCreate) -> Change[Key]:
    meta = new_meta(site, "key", body, key_id)
    refuse_taken(site, "key", meta)
    key = Key(meta, KeySpec(public_key=body.public_key, fingerprint=fingerprint(body.public_key)))
    taking = take(claims_of(key), owner_id=key_id, at=meta.created_at)
    return create(site, "key", key, taking, f"key {meta.name} was added")
