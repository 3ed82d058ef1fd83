"""Which faults are there now, in a file: so that ``heal`` undoes all of them, whoever made them.

A fault is written down before it is made, so a command that was killed half-way leaves nothing that nobody knows of;
undoing one that never came about does nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ucloud.lab.layout import LabLayout
from ucloud.system import files
from ucloud.system.clock import SystemClock


@dataclass(frozen=True, slots=True)
class Fault:
    """``until_s`` is when it ends by itself (CLOCK_BOOTTIME; 0: never). ``facts`` are what undoing it needs."""

    id: str
    kind: str
    node: str
    until_s: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


class Ledger:
    def __init__(self, layout: LabLayout) -> None:
        self._file = layout.faults_file
        self._lock = layout.run / "faults.lock"

    def all(self) -> list[Fault]:
        """In the order in which they were made."""
        return [Fault(**plain) for plain in files.read_json(self._file) or []]

    def find(self, fault_id: str) -> Fault | None:
        return next((fault for fault in self.all() if fault.id == fault_id), None)

    def add(self, kind: str, node: str, *, for_s: float = 0.0, **facts: Any) -> Fault:
        until_s = SystemClock().monotonic_s() + for_s if for_s else 0.0
        fault = Fault(secrets.token_hex(4), kind, node, until_s, facts)
        with self._held():
            self._write([*self.all(), fault])
        return fault

    def note(self, fault: Fault, **facts: Any) -> Fault:
        """Add what became known while it was made."""
        new = replace(fault, facts={**fault.facts, **facts})
        with self._held():
            self._write([new if one.id == fault.id else one for one in self.all()])
        return new

    def remove(self, fault_id: str) -> bool:
        """Whether it was there: of two who undo a fault only one does it."""
        with self._held():
            found = self.all()
            self._write([one for one in found if one.id != fault_id])
            return any(one.id == fault_id for one in found)

    def _write(self, faults: list[Fault]) -> None:
        files.write_json(self._file, [asdict(fault) for fault in faults])

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
