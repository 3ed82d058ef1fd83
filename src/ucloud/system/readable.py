"""Waiting until one of several descriptors can be read, whatever their numbers: select(2) ends at 1024."""

from __future__ import annotations

import select
from collections.abc import Iterable


def wait_readable(descriptors: Iterable[int], timeout_s: float | None) -> frozenset[int]:
    """Those with something to read, an end or an error; none after ``timeout_s`` (None: however long it takes)."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return frozenset(number for number, _ in poll.poll(None if timeout_s is None else timeout_s * 1000))
