"""Filtering, sorting and paging of documents. Pure.

A page is named by the place of its last item in the order (value, then id), in hex: so pages stay right while objects
come and go between two requests, and every name that looks like one is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ucloud.api.objects import Document, Scene, Thing, document_of
from ucloud.api.schemas.parameters import ListQuery

_SEPARATOR = b"\x00"


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Document]
    next_page: str

    def shown(self, revision: int) -> dict[str, Any]:
        return {"items": self.items, "next_page": self.next_page, "revision": revision}


def list_page(things: Iterable[Thing], scene: Scene, query: ListQuery, host: str | None = None) -> Page:
    """The asked page; a status is only computed where it is looked at or shown."""
    kept = [thing for thing in things if _meta_fits(thing, query)]
    if query.status is not None or host is not None:
        shown = {thing.meta.id: document_of(thing, scene) for thing in kept}
        kept = [thing for thing in kept if _status_fits(shown[thing.meta.id], query.status, host)]
    order = query.sort.value
    chosen, next_page = cut(kept, lambda thing: _place(thing, order), order.startswith("-"), query.page, query.limit)
    return Page([document_of(thing, scene) for thing in chosen], next_page)


def cut(
    things: Iterable[Any], place: Callable[[Any], bytes], down: bool, page: str, limit: int
) -> tuple[list[Any], str]:
    """``limit`` things behind the place named by ``page``, and the name of the next page."""
    ordered = sorted(things, key=place, reverse=down)
    if page:
        after = bytes.fromhex(page)
        ordered = [thing for thing in ordered if (place(thing) < after if down else place(thing) > after)]
    chosen = ordered[:limit]
    return chosen, place(chosen[-1]).hex() if len(ordered) > limit else ""


def _place(thing: Thing, order: str) -> bytes:
    value = thing.meta.name if order.endswith("name") else thing.meta.created_at
    return value.encode() + _SEPARATOR + thing.meta.id.encode()


def _meta_fits(thing: Thing, query: ListQuery) -> bool:
    meta = thing.meta
    if query.project is not None and meta.project != query.project:
        return False
    if query.name is not None and meta.name != query.name:
        return False
    wanted = (label.split("=", 1) for label in query.label)
    return all(meta.labels.get(key) == value for key, value in wanted)


def _status_fits(document: Document, word: str | None, host: str | None) -> bool:
    status = document["status"]
    return (word is None or status["word"] == word) and (host is None or status.get("host_id") == host)
