"""Something that happened, for people: append-only, kept for days, never used for decisions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """``about`` is the noun, ``about_id`` its object. ``kind`` is a stable word such as ``vm_started``."""

    id: str
    at: str
    kind: str
    about: str
    about_id: str
    project: str
    actor: str
    message: str
    request_id: str = ""
