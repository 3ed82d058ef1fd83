"""What the lab itself adds to the history: that it switched a host off, froze it, or cut it from others."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ucloud.errors import DeadlineExceeded
from ucloud.lab.layout import LabLayout
from ucloud.system.history import History, SocketHistory

SYNC = "sync"
_SYNC_TIMEOUT_S = 5.0
_TAIL_BYTES = 1 << 20


class LabHistory:
    """A socket for each fact: the lab has little to tell."""

    def __init__(self, layout: LabLayout) -> None:
        self._path = str(layout.history_socket)

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        with contextlib.closing(SocketHistory(self._path, source="lab")) as history:
            history.tell(kind, **facts)


def read_history(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines; the recorder may just be writing another."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def wait_recorded(layout: LabLayout, history: History) -> None:
    """Until all that was told so far is written down. Raises DeadlineExceeded if nobody records."""
    token = secrets.token_hex(8)
    history.tell(SYNC, token=token)
    deadline_s = time.monotonic() + _SYNC_TIMEOUT_S
    while not _is_in_tail(layout.history, token.encode()):
        if time.monotonic() > deadline_s:
            raise DeadlineExceeded("failed to read the lab's history: nobody records it", hint="see 'ucloud lab up'")
        time.sleep(0.02)


def _is_in_tail(path: Path, token: bytes) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL_BYTES))
        return token in file.read()
