"""A clock that tests move."""

from __future__ import annotations

import datetime


class ManualClock:
    """Starts at 1000 s; sleeping moves it."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic_s(self) -> float:
        return self.seconds

    def now(self) -> datetime.datetime:
        return datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC) + datetime.timedelta(seconds=self.seconds - 1000)

    def sleep(self, duration_s: float) -> None:
        self.seconds += duration_s
