"""Who reaches whom: one-way cuts, refusals and delays between machines. What is sent into a cut may still arrive later.

Must hold: nothing arrives before it was sent; a cut loses a message or keeps it until after the cut, as TCP does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from tests.scenario.simulation.engine import Engine, Place

_LOST_SHARE = 0.5


class Cut(Enum):
    SILENT = "silent"
    REFUSES = "refuses"


class Network:
    """Links are pairs of machine names, (from, to)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._cuts: dict[tuple[str, str], Cut] = {}
        self._delays_s: dict[tuple[str, str], float] = {}
        self._kept: list[tuple[str, str, Place, Callable[..., None], tuple[Any, ...]]] = []
        self.changed: Callable[[], None] = lambda: None

    def is_open(self, source: str, to: str) -> bool:
        return source == to or (source, to) not in self._cuts

    def both_ways(self, one: str, other: str) -> bool:
        return self.is_open(one, other) and self.is_open(other, one)

    def cut(self, source: str, to: str, how: Cut = Cut.SILENT) -> None:
        self._cuts[source, to] = how

    def heal(self, source: str, to: str) -> None:
        self._cuts.pop((source, to), None)

    def slow(self, machine: str, delay_s: float, *, only_to: bool = False) -> None:
        """Everything to this machine takes so much longer, and if not ``only_to`` also what comes from it."""
        self._delays_s["to", machine] = delay_s
        self._delays_s["from", machine] = 0.0 if only_to else delay_s

    def settle(self) -> None:
        """To be called after links changed: what was kept for a link that is open again goes on its way."""
        kept, self._kept = self._kept, []
        for source, to, place, do, arguments in kept:
            self.send(source, to, place, do, *arguments)
        self.changed()

    def send(
        self,
        source: str,
        to: str,
        place: Place,
        do: Callable[..., None],
        *arguments: Any,
        refused: Callable[[], None] | None = None,
    ) -> None:
        """``refused`` is told to the sender if the way there answers with a refusal."""
        how = self._cuts.get((source, to)) if self._cuts else None
        if how is None:
            delay_s = self._engine.span_s(0.0003, 0.002)
            if self._delays_s:
                delay_s += self._delays_s.get(("from", source), 0.0) + self._delays_s.get(("to", to), 0.0)
            self._engine.after(delay_s, do, *arguments, place=place)
        elif how is Cut.REFUSES:
            if refused is not None:
                self._engine.after(self._engine.span_s(0.0003, 0.002), refused)
        elif not self._engine.chooses(_LOST_SHARE):
            self._kept.append((source, to, place, do, arguments))
