"""A template for root disks. The blob itself lies in pools, named by its digest."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.meta import Meta


class ImageFormat(StrEnum):
    QCOW2 = "qcow2"
    RAW = "raw"


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """``digest`` is the SHA-256 of the blob in hex. ``origin_host_id`` is the host whose pool took the import.

    ``user`` is the account that ssh logs in to.
    """

    digest: str
    format: ImageFormat
    size_bytes: int
    virtual_size_bytes: int
    origin_host_id: str
    source: str = ""
    user: str = "root"


@dataclass(frozen=True, slots=True)
class Image:
    meta: Meta
    spec: ImageSpec
