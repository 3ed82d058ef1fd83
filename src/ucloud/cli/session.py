"""What a command has at hand: the client, and where and how to show its answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from ucloud.cli.columns import row_of, titles_of
from ucloud.cli.tables import render_details, render_table
from ucloud.client import Client, Object, find_profile
from ucloud.config.environment import wants_plain_text
from ucloud.system.clock import Clock, SystemClock


class Session:
    """``out`` gets the answer, ``err`` everything else. The client is made at its first use."""

    def __init__(
        self,
        *,
        profile: Path | None = None,
        output: str = "table",
        out: TextIO | None = None,
        err: TextIO | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.output = output
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self.clock = clock or SystemClock()
        self._profile = profile

    @cached_property
    def client(self) -> Client:
        return Client(find_profile(self._profile))

    def close(self) -> None:
        if "client" in self.__dict__:
            self.client.close()

    @property
    def is_json(self) -> bool:
        return self.output == "json"

    def show(self, noun: str, one: Object) -> None:
        """One object as a row, after it was made or changed."""
        self.show_all(noun, [one]) if not self.is_json else self.show_json(one)

    def show_all(self, noun: str, objects: Sequence[Object]) -> None:
        if self.is_json:
            self.show_json(list(objects))
        elif objects:
            now = self.clock.now()
            rows = [row_of(noun, one, now) for one in objects]
            self.out.write(render_table(titles_of(noun), rows, colours=self.colours(self.out)))
        else:
            self.say(f"no {noun}s")

    def show_details(self, one: Object) -> None:
        """A whole object."""
        if self.is_json:
            self.show_json(one)
        else:
            self.out.write(render_details(one))

    def show_dry_run(self, noun: str, answer: Object) -> None:
        """What would happen; the object that would be, and for a new VM why it would be where."""
        if self.is_json:
            self.show_json(answer)
            return
        self.say(f"would {answer.get('would', 'do nothing')} (dry run: nothing was changed)")
        self.out.write(render_details({name: answer[name] for name in ("object", "placement") if answer.get(name)}))

    def show_json(self, value: Any) -> None:
        json.dump(value, self.out, indent=2, sort_keys=True, ensure_ascii=False)
        self.out.write("\n")

    def say(self, text: str) -> None:
        self.err.write(f"{text}\n")
        self.err.flush()

    def colours(self, stream: TextIO) -> bool:
        return stream.isatty() and not wants_plain_text()
