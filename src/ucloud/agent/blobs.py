"""The pass over one image blob that VMs of this host need: fetch it from a host that has it.

Runs in a loop of its own, so that a slow fetch holds up no stop or delete. Bounded: FETCH_TIMEOUT_S for a whole fetch,
SILENCE_TIMEOUT_S without a byte.
"""

from __future__ import annotations

import http.client
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, cast
from urllib.parse import urlsplit

from ucloud.config import Config
from ucloud.errors import DeadlineExceeded, Error, Unavailable
from ucloud.model.wanted import WantedImage
from ucloud.storage.fetch import fetch_blob
from ucloud.storage.pool import Pool
from ucloud.system.clock import Clock
from ucloud.system.door import DoorConnection, door_context

logger = logging.getLogger(__name__)

FETCH_TIMEOUT_S = 3600.0
SILENCE_TIMEOUT_S = 30.0
LIMIT_BYTES = 1024 * 2**30

Opener = Callable[[str], BinaryIO]


@dataclass(slots=True)
class BlobPasses:
    """``find`` gives the image of a digest that some VM here wants; ``on_ready`` is told when its blob is here."""

    pool: Pool
    find: Callable[[str], WantedImage | None]
    opener: Opener
    on_ready: Callable[[str], None]
    wake: Callable[[str], None]
    clock: Clock
    _said: dict[str, str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def why_missing(self, image: WantedImage) -> str:
        """ "" if the blob is here; else it is fetched, and this says how far that is or why it failed."""
        if self.pool.has_blob(image.digest, image.format):
            return ""
        self.wake(image.digest)
        with self._lock:
            return self._said.get(image.digest, "its image is about to be fetched")

    def run(self, digest: str) -> float | None:
        """One pass. An error comes back with the loop's delay, and is told meanwhile."""
        image = self.find(digest)
        if image is None:
            self._say(digest, "")
            return None
        try:
            self._fetch(image)
        except Error as error:
            self._say(digest, error.message)
            raise
        self._say(digest, "")
        self.on_ready(digest)
        return None

    def _fetch(self, image: WantedImage) -> None:
        deadline_s = self.clock.monotonic_s() + FETCH_TIMEOUT_S

        def progress(done_bytes: int) -> None:
            if self.clock.monotonic_s() > deadline_s:
                raise DeadlineExceeded(f"failed to fetch image blob {image.digest}: not in {FETCH_TIMEOUT_S:g} s")
            self._say(image.digest, f"its image is being fetched: {done_bytes >> 20} MiB so far")

        fetch_blob(
            self.pool,
            image.digest,
            image.format,
            sources=[f"{door}/blobs/{image.digest}" for door in image.sources],
            opener=self.opener,
            max_bytes=LIMIT_BYTES,
            progress=progress,
        )

    def _say(self, digest: str, text: str) -> None:
        with self._lock:
            if text:
                self._said[digest] = text
            else:
                self._said.pop(digest, None)


def blob_opener(config: Config) -> Opener:
    """A function that opens the stream of a blob's URL at another host's door. Raises Unavailable or OSError."""
    context: ssl.SSLContext = door_context(config.store.ca_file, config.host.cert_file, config.host.key_file)

    def open_blob(url: str) -> BinaryIO:
        connection = DoorConnection(url, context, timeout_s=SILENCE_TIMEOUT_S)
        try:
            connection.request("GET", urlsplit(url).path, headers={"Connection": "close"})
            response = connection.getresponse()
        except http.client.HTTPException as error:
            connection.close()
            raise Unavailable(f"failed to fetch {url}: {type(error).__name__}") from error
        if response.status != http.client.OK:
            response.close()  # it may have taken the socket over from the connection
            connection.close()
            raise Unavailable(f"failed to fetch {url}: the host answered {response.status}")
        return cast(BinaryIO, response)

    return open_blob
