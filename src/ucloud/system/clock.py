"""Time, as a value that can be passed in, so that logic with deadlines is tested without waiting.

``monotonic_s`` counts also while the machine sleeps (CLOCK_BOOTTIME): a host that was suspended must know
that its deadlines have passed.
"""

from __future__ import annotations

import datetime
import time
from typing import Protocol

_BOOT_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    def monotonic_s(self) -> float:
        """Seconds since some fixed point; never steps back."""
        ...

    def now(self) -> datetime.datetime:
        """Wall-clock time in UTC, for people only: never decide by it."""
        ...

    def sleep(self, duration_s: float) -> None:
        """Do nothing for a while: between two looks at something that cannot wake us."""
        ...


class SystemClock:
    """The clock of this machine."""

    def monotonic_s(self) -> float:
        return time.clock_gettime(_BOOT_CLOCK)

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC)

    def sleep(self, duration_s: float) -> None:
        time.sleep(duration_s)


def format_time(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC with milliseconds: ``2026-01-31T12:00:00.123Z``."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
