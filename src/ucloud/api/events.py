"""What happened lately, oldest first."""

from __future__ import annotations

from ucloud.api.answers import Answer
from ucloud.api.schemas.parameters import EventQuery
from ucloud.api.site import Site
from ucloud.model.event import Event
from ucloud.store.codec import to_plain


def list_events(site: Site, query: EventQuery) -> Answer:
    """List events; ``after`` continues behind an event seen before."""
    events, revision = site.events()
    found = [event for event in events if _fits(event, query)]
    if query.after is None:
        chosen, next_page = found[-query.limit :], ""
    else:
        behind = [event for event in found if event.id > query.after]
        chosen = behind[: query.limit]
        next_page = chosen[-1].id if len(behind) > query.limit else ""
    return Answer({"items": [to_plain(event) for event in chosen], "next_page": next_page, "revision": revision})


def _fits(event: Event, query: EventQuery) -> bool:
    wanted = {"about": query.about, "about_id": query.about_id, "project": query.project, "kind": query.kind}
    return all(value is None or getattr(event, name) == value for name, value in wanted.items())
