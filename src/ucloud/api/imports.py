"""Importing an image from a URL: an answer of JSON lines that tell of the progress, the last one of the end.

What is wrong before the first byte of the image is a problem like any other. The download runs in a thread of its own;
a line goes out at least each second, so that a client that went away is noticed: then the download ends and leaves
nothing.
"""

from __future__ import annotations

import contextvars
import json
import logging
import queue
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

from ucloud.api.answers import NDJSON, Answer
from ucloud.api.images import preview_image, receive, spec_of, store_image
from ucloud.api.nouns import new_meta
from ucloud.api.objects import Scene, document_of
from ucloud.api.requests import Preconditions, read_preconditions
from ucloud.api.schemas.image import ImageImport
from ucloud.api.schemas.parameters import PostHeaders, WriteQuery
from ucloud.api.site import Site
from ucloud.api.writes import find_replay, refuse_taken
from ucloud.config import Config
from ucloud.errors import Conflict, Error, Unavailable
from ucloud.model.image import Image
from ucloud.model.meta import Meta
from ucloud.serving.problem import problem
from ucloud.storage.download import Download, DownloadLimits, open_url, parse_url, shown_url
from ucloud.system.own_networks import observe_own_networks

_log = logging.getLogger(__name__)
_PROGRESS_EVERY_S = 0.5
_Line = dict[str, Any]


def import_image(site: Site, query: WriteQuery, header: PostHeaders, body: ImageImport) -> Answer:
    """Make an image of what a URL serves; answers with lines of JSON while it loads."""
    conditions = read_preconditions(header.idempotency_key, body.project, body.digest_bytes())
    replay = find_replay(site, "image", Image, conditions)
    if replay is not None and not query.dry_run:
        shown = document_of(replay.thing, Scene(site.view()))
        return Answer([_encode({"image": shown})], 200, {"Idempotent-Replay": "true"}, NDJSON)
    meta = new_meta(site, "image", body)
    refuse_taken(site, "image", meta)
    parse_url(body.url)
    if query.dry_run:
        return preview_image(site, meta, source=shown_url(body.url), sha256=body.sha256, user=body.user)
    return Answer(_Import(site, meta, body, conditions, _open(site, body.url)), content_type=NDJSON)


def _open(site: Site, url: str) -> Download:
    """The transfer is begun. That a server of others does not answer is a Conflict: this API is not unavailable."""
    site.transfers.begin()
    try:
        return open_url(url, limits=download_limits(site.config), clock=site.clock)
    except Unavailable as error:
        site.transfers.end()
        raise Conflict(error.message, hint=error.hint, code=error.code) from error
    except BaseException:
        site.transfers.end()
        raise


def download_limits(config: Config) -> DownloadLimits:
    """A URL of a user reaches neither this machine nor its neighbours, also by public addresses, nor guests."""
    guests = ip_network(config.network.ula_prefix)
    return DownloadLimits(
        allowed_hosts=frozenset(config.api.download_allowed_hosts),
        forbidden_networks=(*observe_own_networks(), guests),
    )


class _Import:
    """Iterates over the lines. Whoever does so closes it; the thread ends the transfer."""

    def __init__(
        self, site: Site, meta: Meta, body: ImageImport, conditions: Preconditions, download: Download
    ) -> None:
        self._site = site
        self._meta = meta
        self._body = body
        self._conditions = conditions
        self._download = download
        self._received_bytes = 0
        self._end: queue.Queue[_Line] = queue.Queue()
        self._cancelled = False
        self._ended = False
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="image-import", daemon=True).start()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._ended:
            raise StopIteration
        try:
            line = self._end.get(timeout=_PROGRESS_EVERY_S)
            self._ended = True
        except queue.Empty:
            line = {"progress": {"bytes": self._received_bytes, "total": self._download.length_bytes}}
        return _encode(line)

    def close(self) -> None:
        """Nobody reads the lines any more."""
        if not self._ended:
            self._cancelled = True
            self._download.abort()

    def _run(self) -> None:
        try:
            with self._download:
                self._end.put({"image": self._import()})
        except Error as error:
            _log.info("image import failed: %s", error.message)
            self._end.put({"problem": problem(error)})
        except Exception as error:  # noqa: BLE001 a thread's main: its client must get a last line
            _log.error("image import failed unexpectedly", exc_info=error)
            self._end.put({"problem": problem(Error("failed to import the image: an internal error"))})
        finally:
            self._site.transfers.end()

    def _import(self) -> _Line:
        site, body = self._site, self._body
        info = receive(site, self._download, sha256=body.sha256, progress=self._tell)
        self._check_wanted()
        image = Image(self._meta, spec_of(site, info, source=shown_url(body.url), user=body.user))
        done = store_image(site, image, self._conditions)
        site.catch_up(done.revision)
        return document_of(done.thing, Scene(site.view()))

    def _tell(self, received_bytes: int) -> None:
        self._check_wanted()
        self._received_bytes = received_bytes

    def _check_wanted(self) -> None:
        if self._cancelled:
            raise Unavailable("failed to import the image: the client went away")


def _encode(line: _Line) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
