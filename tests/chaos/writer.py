"""Writes to the API while everything breaks, and knows afterwards what had been acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from ucloud.client import Client
from ucloud.errors import Error, NotFound
from ucloud.lab.driver import Lab
from ucloud.lab.telling import LabHistory

_PAUSE_S = 0.5
_PATIENCE_S = 60.0


class Writer(threading.Thread):
    """Makes networks, one after the other. What it made is deleted by ``end``."""

    def __init__(self, lab: Lab, seed: int) -> None:
        super().__init__(name="writer", daemon=True)
        self._lab = lab
        self._seed = seed
        self._history = LabHistory(lab.layout)
        self._over = threading.Event()
        self.acked: set[str] = set()
        self.unanswered = 0

    def run(self) -> None:
        number = 0
        while not self._over.wait(_PAUSE_S):
            number += 1
            try:
                made = self._lab.ask(self._make(f"w{self._seed}-{number}"))
            except Error:
                self.unanswered += 1
                continue
            self.acked.add(made["id"])
            self._history.tell("write_acked", id=made["id"], key=made["name"])

    @staticmethod
    def _make(name: str) -> Callable[[Client], dict[str, Any]]:
        return lambda client: client.create("network", {"name": name})

    def stop(self) -> None:
        self._over.set()
        self.join(30)

    def look(self) -> set[str]:
        """The ids of acknowledged writes that are not there; the others are told of."""
        found = {one["id"] for one in self._networks()}
        for one in found & self.acked:
            self._history.tell("write_found", id=one)
        return self.acked - found

    def clear(self) -> set[str]:
        """Delete what was made, acknowledged or not. What is there all the same, though its end was acknowledged."""
        mine = [one["id"] for one in self._networks() if one["name"].startswith(f"w{self._seed}-")]

        def delete(client: Client) -> None:
            for one in mine:
                try:
                    client.delete("network", one)
                except NotFound:
                    continue

        self._lab.ask(delete, timeout_s=10.0, patience_s=_PATIENCE_S)
        return {one["id"] for one in self._networks()} & set(mine)

    def _networks(self) -> list[dict[str, Any]]:
        return self._lab.ask(lambda client: list(client.each("network")), timeout_s=10.0, patience_s=_PATIENCE_S)
