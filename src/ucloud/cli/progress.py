"""Waits and transfers, live: one line that changes on a terminal, a line per change elsewhere."""

from __future__ import annotations

import shutil
from typing import TextIO

from ucloud.cli.human import clean, format_bytes, format_seconds
from ucloud.cli.tables import colour, word_colour
from ucloud.system.clock import Clock, SystemClock

_STEP_PERCENT = 10


class Progress:
    """Call ``word`` or ``transfer`` as things move on and ``end`` when they are over; ``with`` does the latter."""

    def __init__(self, title: str, stream: TextIO, *, colours: bool = False, clock: Clock | None = None) -> None:
        self._title = title
        self._stream = stream
        self._live = stream.isatty()
        self._colours = colours
        self._clock = clock or SystemClock()
        self._started_s = self._clock.monotonic_s()
        self._shown_percent = -_STEP_PERCENT
        self._shown_s = 0.0
        self._open = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def word(self, word: str, reason: str) -> None:
        """An object's word and reason, whenever they change."""
        passed = format_seconds(self._clock.monotonic_s() - self._started_s)
        tail = f": {clean(reason)}" if reason else ""
        line = f"{self._title} {clean(word)}{tail} ({passed})"
        if self._colours and len(line) < self._columns():
            line = line.replace(f" {word}", f" {colour(word, word_colour(word))}", 1)
            self._put(line, cut=False)
        else:
            self._put(line)

    def transfer(self, done: int, total: int | None) -> None:
        """Bytes moved so far: on a terminal ten times a second, elsewhere each tenth of the whole."""
        percent = done * 100 // total if total else 0
        now_s = self._clock.monotonic_s()
        finished = total is not None and done >= total
        if self._live:
            if now_s - self._shown_s < 0.1 and not finished:
                return
        elif not finished and percent < self._shown_percent + _STEP_PERCENT:
            return
        self._shown_s, self._shown_percent = now_s, percent
        rate = done / max(now_s - self._started_s, 0.001)
        whole = f" of {format_bytes(total)}, {percent} %" if total else ""
        self._put(f"{self._title} {format_bytes(done)}{whole}, {format_bytes(rate)}/s")

    def end(self) -> None:
        if self._open:
            self._stream.write("\n")
            self._open = False
        self._stream.flush()

    def _put(self, line: str, *, cut: bool = True) -> None:
        if self._live:
            shown = line[: self._columns() - 1] if cut else line
            self._stream.write(f"\r{shown}\x1b[K")
            self._open = True
        else:
            self._stream.write(f"{line}\n")
        self._stream.flush()

    def _columns(self) -> int:
        return max(shutil.get_terminal_size().columns, 20)
