"""Importing an image from a URL: an answer of JSON lines that tell of the progress, the last one of the end.

The download runs in a thread of its own; when the client goes away, the download ends and leaves nothing.
"""

from __future__ import annotations

import contextvars
import json
import logging
import queue
import threading
from collections.abc import Iterator
from typing import Any

from ucloud.api.answers import NDJSON, Answer
from ucloud.api.images import receive, spec_of, store_image
from ucloud.api.objects import Scene, document_of
from ucloud.api.problems import problem
from ucloud.api.requests import Preconditions, read_preconditions
from ucloud.api.schemas.image import ImageImport
from ucloud.api.schemas.parameters import NoQuery, PostHeaders
from ucloud.api.site import Site
from ucloud.api.writes import find_replay, refuse_taken
from ucloud.errors import Error, Unavailable
from ucloud.model.image import Image
from ucloud.model.meta import Meta
from ucloud.storage.download import DownloadLimits, open_url
from ucloud.system.identity import new_id

_log = logging.getLogger(__name__)
_PROGRESS_EVERY_S = 0.5
_Line = dict[str, Any]


def import_image(site: Site, query: NoQuery, header: PostHeaders, body: ImageImport) -> Answer:
    """Make an image of what a URL serves; answers with lines of JSON while it loads."""
    conditions = read_preconditions(header.idempotency_key, body.project, body.digest_bytes())
    replay = find_replay(site, "image", Image, conditions)
    if replay is not None:
        shown = document_of(replay.thing, Scene(site.view()))
        return Answer([_encode({"image": shown})], 200, {"Idempotent-Replay": "true"}, NDJSON)
    meta = Meta(
        id=new_id("image"),
        name=body.name,
        project=body.project,
        created_at=site.now(),
        labels=body.labels,
        delete_protection=body.delete_protection,
    )
    refuse_taken(site, "image", meta)
    return Answer(_Import(site, meta, body, conditions).lines(), content_type=NDJSON)


class _Import:
    def __init__(self, site: Site, meta: Meta, body: ImageImport, conditions: Preconditions) -> None:
        self._site = site
        self._meta = meta
        self._body = body
        self._conditions = conditions
        self._queue: queue.Queue[_Line] = queue.Queue()
        self._cancelled = threading.Event()
        self._told_s = 0.0
        self._total: int | None = None

    def lines(self) -> Iterator[bytes]:
        """Progress, then the image or the problem."""
        context = contextvars.copy_context()
        worker = threading.Thread(target=context.run, args=(self._run,), name="image-import", daemon=True)
        worker.start()
        try:
            while True:
                line = self._queue.get()
                yield _encode(line)
                if "progress" not in line:
                    return
        finally:
            self._cancelled.set()

    def _run(self) -> None:
        try:
            self._queue.put({"image": self._import()})
        except Error as error:
            _log.info("image import failed: %s", error.message)
            self._queue.put({"problem": problem(error)})
        except Exception as error:  # noqa: BLE001 a thread's main: its client must get a last line
            _log.error("image import failed unexpectedly", exc_info=error)
            self._queue.put({"problem": problem(Error("failed to import the image: an internal error"))})

    def _import(self) -> _Line:
        site, body = self._site, self._body
        limits = DownloadLimits(allowed_hosts=frozenset(site.config.api.download_allowed_hosts))
        with open_url(body.url, limits=limits, clock=site.clock) as download:
            self._total = download.length_bytes
            info = receive(site, download, sha256=body.sha256, progress=self._tell)
        image = Image(self._meta, spec_of(site, info, source=body.url, user=body.user))
        done = store_image(site, image, self._conditions)
        site.catch_up(done.revision)
        return document_of(done.thing, Scene(site.view()))

    def _tell(self, received_bytes: int) -> None:
        if self._cancelled.is_set():
            raise Unavailable("failed to import the image: the client went away")
        now_s = self._site.clock.monotonic_s()
        if now_s - self._told_s >= _PROGRESS_EVERY_S:
            self._told_s = now_s
            self._queue.put({"progress": {"bytes": received_bytes, "total": self._total}})


def _encode(line: _Line) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
