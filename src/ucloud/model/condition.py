"""A named truth about an object, with its reason and since when: the detail behind the one word."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Condition:
    """``type`` is a stable word (``placed``, ``running``…); ``until`` is the deadline of a wait, "" for none."""

    type: str
    status: bool
    reason: str
    since: str = ""
    until: str = ""
