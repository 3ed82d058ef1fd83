"""Events as writes, to be put into the transaction of the change that they tell of."""

from __future__ import annotations

import secrets

from ucloud.model.event import Event
from ucloud.store import keys
from ucloud.store.api import Put
from ucloud.store.codec import encode
from ucloud.system import logs
from ucloud.system.clock import Clock, format_time


def event_id(clock: Clock) -> str:
    """Sorts by time: milliseconds since 1970 as 12 hex digits, then 6 random ones."""
    return f"{int(clock.now().timestamp() * 1000):012x}-{secrets.token_hex(3)}"


def event_put(
    clock: Clock, kind: str, message: str, *, about: str, about_id: str, project: str = "", actor: str
) -> Put:
    """The write of one event. ``actor`` is the process or user that did it; no secret may be in ``message``."""
    event = Event(
        id=event_id(clock),
        at=format_time(clock.now()),
        kind=kind,
        about=about,
        about_id=about_id,
        project=project,
        actor=actor,
        message=message,
        request_id=logs.request_id.get(),
    )
    return Put(keys.event(event.id), encode(event))
