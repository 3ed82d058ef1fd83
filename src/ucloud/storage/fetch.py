"""A blob from another host of the cloud: asked from each that has it until one gives the right bytes.

The digest is the name, so it does not matter who sends it; how to reach a host (TLS, certificates, its door) is
the caller's ``opener``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import BinaryIO

from ucloud.errors import InvalidInput, Unavailable
from ucloud.model.image import ImageFormat
from ucloud.storage.images import examine, import_stream
from ucloud.storage.pool import BlobInfo, Pool


def fetch_blob(
    pool: Pool,
    digest: str,
    image_format: ImageFormat,
    *,
    sources: Sequence[str],
    opener: Callable[[str], BinaryIO],
    max_bytes: int,
    progress: Callable[[int], None],
) -> BlobInfo:
    """Have the blob in ``pool``. ``opener`` gives the stream of a source's address, and raises Error or OSError.

    Raises Unavailable (``blob_unavailable``) with each source's failure; Exhausted if this pool is full.
    """
    if pool.has_blob(digest, image_format):
        with pool.open_blob(digest, image_format) as file:
            return examine(file, digest, file.seek(0, 2))
    failures = []
    for source in sources:
        try:
            with closing(opener(source)) as stream:
                return import_stream(pool, stream, expected_sha256=digest, max_bytes=max_bytes, progress=progress)
        except (InvalidInput, Unavailable) as error:
            failures.append(f"{source}: {error.message}")
        except OSError as error:
            failures.append(f"{source}: {error}")
    cause = "; ".join(failures) or "no host is known to have it"
    raise Unavailable(f"failed to fetch image blob {digest}: {cause}", code="blob_unavailable")
