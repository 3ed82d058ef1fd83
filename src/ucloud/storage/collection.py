"""Which blobs of a pool may be deleted. Pure.

A blob goes only by a positive sign: the caller names the digests of deleted images. A blob that nobody mentions
stays, because "not in the list" may also mean that the list was not read to its end.
"""

from __future__ import annotations

from collections.abc import Iterable

from ucloud.storage.pool import StoredBlob

DEFAULT_GRACE_S = 60.0


def plan_collection(
    blobs: Iterable[StoredBlob],
    *,
    dropped_digests: frozenset[str],
    wanted_digests: frozenset[str],
    in_use_digests: frozenset[str] | None,
    grace_s: float = DEFAULT_GRACE_S,
) -> tuple[StoredBlob, ...]:
    """The blobs to delete: dropped, wanted by no image, below no volume here, and older than ``grace_s``.

    ``in_use_digests`` None means that a volume could not be read: then nothing is deleted.
    """
    if in_use_digests is None:
        return ()
    keep = wanted_digests | in_use_digests
    return tuple(
        blob for blob in blobs if blob.digest in dropped_digests and blob.digest not in keep and blob.age_s >= grace_s
    )
