"""Images: imported by upload or from a URL, checked by the storage room, then made an object in one transaction.

A failed import leaves nothing; a blob whose object was not made is unused and collected by the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import BinaryIO

from flask import request

from ucloud.api.answers import Answer
from ucloud.api.nouns import (
    IMAGE,
    Way,
    answer_done,
    change_object,
    changed_meta,
    delete_object,
    get_object,
    list_objects,
    read_for_change,
    tell,
)
from ucloud.api.problems import UnsupportedMediaType
from ucloud.api.requests import Preconditions, body_stream, read_preconditions
from ucloud.api.schemas.image import ImageUpdate
from ucloud.api.schemas.parameters import ListQuery, ObjectPath, PostHeaders, UploadQuery, WriteQuery
from ucloud.api.site import Site
from ucloud.api.writes import Change, Done, commit, create, find_replay, refuse_taken, update
from ucloud.errors import BodyTooLarge, Conflict, InvalidInput
from ucloud.ipam.claims import take
from ucloud.model.image import Image, ImageFormat, ImageSpec
from ucloud.model.meta import Meta
from ucloud.storage.images import import_stream
from ucloud.storage.pool import BlobInfo
from ucloud.store import keys
from ucloud.store.claims import claims_of
from ucloud.system.identity import new_id

OCTETS = "application/octet-stream"
_UPLOAD = "upload"
_GIB = 1024**3


def list_images(site: Site, query: ListQuery) -> Answer:
    """List images."""
    return list_objects(site, IMAGE, query)


def get_image(site: Site, path: ObjectPath) -> Answer:
    """Show an image."""
    return get_object(site, IMAGE, path.id)


def upload_image(site: Site, query: UploadQuery, header: PostHeaders) -> Answer:
    """Make an image of the request's body, a qcow2 or raw disk; a dry run reads no body."""
    conditions = read_preconditions(header.idempotency_key, query.project)
    way = Way(conditions, status=201, located=True)
    meta = Meta(id=new_id("image"), name=query.name, project=query.project, created_at=site.now())
    if query.dry_run:
        _check_upload(site)
        refuse_taken(site, "image", meta)
        return preview_image(site, meta, source=_UPLOAD, sha256=query.sha256, user=query.user)
    replay = find_replay(site, "image", Image, conditions)
    if replay is not None:
        return answer_done(site, IMAGE, way, replay)
    _check_upload(site)
    refuse_taken(site, "image", meta)
    site.transfers.begin()
    try:
        info = receive(site, body_stream(), sha256=query.sha256, progress=lambda _: None)
    finally:
        site.transfers.end()
    done = store_image(site, Image(meta, spec_of(site, info, source=_UPLOAD, user=query.user)), conditions)
    return answer_done(site, IMAGE, way, done)


def preview_image(site: Site, meta: Meta, *, source: str, sha256: str | None, user: str) -> Answer:
    """What an import would make, as far as that is known without the image."""
    unknown = BlobInfo(sha256 or "", ImageFormat.QCOW2, 0, 0)
    image = Image(meta, spec_of(site, unknown, source=source, user=user))
    return tell(site, Change(image, keys.spec("image", meta.id), "create"), {})


def update_image(site: Site, path: ObjectPath, query: WriteQuery, body: ImageUpdate) -> Answer:
    """Change an image's name, labels, delete protection or user."""
    way = Way(read_preconditions(None, ""), query.dry_run)

    def plan() -> Change[Image]:
        read = read_for_change(site, IMAGE, path.id, way.conditions)
        old, given = read.thing, body.given()
        new = Image(changed_meta(old.meta, given), replace(old.spec, user=given.get("user", old.spec.user)))
        refuse_taken(site, "image", new.meta)
        return update(site, "image", read, new, kind="image_updated", event=f"image {new.meta.name} was changed")

    return change_object(site, IMAGE, way, plan)


def delete_image(site: Site, path: ObjectPath, query: WriteQuery) -> Answer:
    """Delete an image that no VM was made of."""
    way = Way(read_preconditions(None, ""), query.dry_run, status=202)
    return delete_object(site, IMAGE, path.id, way, lambda vm, image_id: vm.spec.image_id == image_id)


def receive(
    site: Site, source: BinaryIO | Iterable[bytes], *, sha256: str | None, progress: Callable[[int], None]
) -> BlobInfo:
    """A stream into the pool. What is wrong with its content is a Conflict: it is not what was announced."""
    try:
        return import_stream(site.pool, source, expected_sha256=sha256, max_bytes=_limit_bytes(site), progress=progress)
    except BodyTooLarge:
        raise
    except InvalidInput as error:
        raise Conflict(error.message, hint=error.hint, code=error.code) from error


def spec_of(site: Site, info: BlobInfo, *, source: str, user: str) -> ImageSpec:
    return ImageSpec(
        digest=info.digest,
        format=info.format,
        size_bytes=info.size_bytes,
        virtual_size_bytes=info.virtual_size_bytes,
        origin_host_id=site.config.host.id,
        source=source,
        user=user,
    )


def store_image(site: Site, image: Image, conditions: Preconditions) -> Done[Image]:
    def plan() -> Change[Image]:
        refuse_taken(site, "image", image.meta)
        taking = take(claims_of(image), owner_id=image.meta.id, at=image.meta.created_at)
        return create(site, "image", image, taking, f"image {image.meta.name} was imported")

    return commit(site, "image", Image, plan, conditions)


def _limit_bytes(site: Site) -> int:
    return site.config.api.image_limit_gib * _GIB


def _check_upload(site: Site) -> None:
    if request.mimetype != OCTETS:
        raise UnsupportedMediaType(
            f"failed to read the image: it is {request.mimetype or 'of no type'}", hint=f"send {OCTETS}"
        )
    if request.content_length is not None and request.content_length > _limit_bytes(site):
        raise BodyTooLarge(
            f"failed to read the image: it is larger than {site.config.api.image_limit_gib} GiB", code="image_too_large"
        )
