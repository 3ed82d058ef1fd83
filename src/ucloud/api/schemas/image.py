"""Bodies of images."""

from __future__ import annotations

from ucloud.api.schemas.fields import NO_LABELS, Account, Body, Labels, Name, Sha256, Shown, Url, left_out
from ucloud.api.schemas.objects import DryRunShown, ListShown, ObjectShown
from ucloud.model.image import ImageFormat
from ucloud.model.meta import DEFAULT_PROJECT


class ImageImport(Body):
    name: Name
    project: Name = DEFAULT_PROJECT
    labels: Labels = NO_LABELS
    delete_protection: bool = False
    url: Url
    sha256: Sha256 = left_out()
    user: Account = "root"


class ImageUpdate(Body):
    name: Name = left_out()
    labels: Labels = left_out()
    delete_protection: bool = left_out()
    user: Account = left_out()


class ImageSpecShown(Shown):
    digest: str
    format: ImageFormat
    size_bytes: int
    virtual_size_bytes: int
    origin_host_id: str
    source: str
    user: str


class ImageStatusShown(Shown):
    word: str
    hosts: list[str]
    vms: int


class ImageShown(ObjectShown[ImageSpecShown, ImageStatusShown]):
    pass


class ImagePlanned(ObjectShown[ImageSpecShown, ImageStatusShown]):
    """Without an id if it is not made yet."""

    id: str = ""


class ImageList(ListShown[ImageShown]):
    pass


class ImageDryRun(DryRunShown[ImagePlanned]):
    pass
