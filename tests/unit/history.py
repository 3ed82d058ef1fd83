"""A history that is kept, to be looked at."""

from __future__ import annotations

from typing import Any


class Heard:
    """Fulfils ``system.history.History``."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        self.told.append((kind, facts))
