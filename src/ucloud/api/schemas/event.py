"""Bodies of events."""

from __future__ import annotations

from ucloud.api.schemas.fields import Shown
from ucloud.api.schemas.objects import ListShown


class EventShown(Shown):
    id: str
    at: str
    kind: str
    about: str
    about_id: str
    project: str
    actor: str
    message: str
    request_id: str


class EventList(ListShown[EventShown]):
    pass
