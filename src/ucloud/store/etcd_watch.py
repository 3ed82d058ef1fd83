"""A watch on etcd that outlives streams and members: it resumes at the next revision on another member.

Owns one connection at a time. Must hold: every change is delivered once and in order, or Compacted is raised;
a member that froze, lost its leader or never answers is left within seconds; ``close`` ends it at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from ucloud.errors import Compacted, StoreError, StoreUnavailable
from ucloud.store import etcd_wire as wire
from ucloud.store.api import WatchBatch
from ucloud.store.etcd_calls import Calls, question, raise_for
from ucloud.store.etcd_http import Connection, Silence, TransportError

_QUIET_S = 3.0  # after so long without a byte the member is asked whether it is well
_CHECK_TIMEOUT_S = 1.5
_OPEN_TIMEOUT_S = 2.0  # for one member
_PAUSE_S = 0.1


class EtcdWatch:
    """Iterate in one thread. Silence of 3 s yields an empty batch if the member says that it is well."""

    def __init__(self, calls: Calls, prefix: str, from_revision: int) -> None:
        self._calls = calls
        self._prefix = prefix
        self._next_revision = from_revision
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._closed = threading.Event()
        self._may_log_in = True

    def __iter__(self) -> Iterator[WatchBatch]:
        try:
            while not self._is_closed():
                connection = self._open()
                if connection is None:
                    return
                try:
                    yield from self._batches(connection)
                except TransportError:
                    self._calls.members.leave_alone(connection.endpoint)
                finally:
                    self._drop(connection)
        finally:
            self.close()

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            if self._connection is not None:
                self._connection.cut()

    def _is_closed(self) -> bool:
        return self._closed.is_set() or self._calls.is_closed

    def _open(self) -> Connection | None:
        """A stream that was confirmed; None if closed meanwhile. Raises StoreUnavailable after the deadline."""
        clock = self._calls.clock
        deadline_s = clock.monotonic_s() + self._calls.timeout_s
        cause = ""
        while not self._is_closed():
            endpoints = self._calls.members.in_order()
            for index, endpoint in enumerate(endpoints):
                now_s = clock.monotonic_s()
                share_s = min(max((deadline_s - now_s) / (len(endpoints) - index), _PAUSE_S), _OPEN_TIMEOUT_S)
                try:
                    connection = self._calls.open_stream(
                        endpoint,
                        question(wire.WATCH, wire.render_watch(self._prefix, self._next_revision)),
                        deadline_s=now_s + share_s,
                    )
                except TransportError as error:
                    cause = f"{endpoint}: {error}"
                    self._calls.members.leave_alone(endpoint)
                    continue
                return self._adopt(connection)
            if clock.monotonic_s() + _PAUSE_S >= deadline_s:
                raise StoreUnavailable(f"failed to watch etcd: {cause}")
            self._closed.wait(_PAUSE_S)
        return None

    def _adopt(self, connection: Connection) -> Connection | None:
        with self._lock:
            if self._is_closed():
                connection.close()
                return None
            self._connection = connection
            return connection

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self._connection = None
        connection.close()

    def _batches(self, connection: Connection) -> Iterator[WatchBatch]:
        for result in self._results(connection):
            if result is None:
                yield WatchBatch(self._next_revision - 1)
            elif result.get("canceled"):
                self._cancelled(result, connection)
                return
            elif result.get("created"):
                self._may_log_in = True
                if self._next_revision <= 0:
                    self._next_revision = wire.parse_revision(result) + 1
            else:
                events = tuple(wire.parse_event(raw) for raw in result.get("events", ()))
                # Only a progress sign's header tells how far we are: the one of a partial batch is ahead of it.
                revision = events[-1].item.mod_revision if events else wire.parse_revision(result)
                self._next_revision = max(self._next_revision, revision + 1)
                yield WatchBatch(self._next_revision - 1, events)

    def _cancelled(self, result: dict[str, Any], connection: Connection) -> None:
        """The server ended the watch: raise what that means, or return to open it again."""
        if int(result.get("compact_revision", 0)):
            raise Compacted("failed to watch etcd: the revision is compacted", hint="list again")
        reason = str(result.get("cancel_reason", ""))
        if "permission denied" not in reason:
            raise TransportError(f"the member ended the watch: {reason}", maybe_done=False)
        # The same words for a token that this member forgot and for a key that the user may not read.
        deadline_s = self._calls.clock.monotonic_s() + self._calls.timeout_s
        if not self._may_log_in or not self._calls.renew_login(connection.endpoint, deadline_s=deadline_s):
            raise StoreError("failed to watch etcd: the user may not read this prefix", code="store_denied")
        self._may_log_in = False

    def _results(self, connection: Connection) -> Iterator[dict[str, Any] | None]:
        """The stream's messages, one JSON object a line; None after a silence that the member explained."""
        rest = b""
        while not self._is_closed():
            try:
                chunk = connection.read_chunk(deadline_s=self._calls.clock.monotonic_s() + _QUIET_S)
            except Silence:
                if not self._calls.is_member_well(connection.endpoint, timeout_s=_CHECK_TIMEOUT_S):
                    raise
                yield None
                continue
            if not chunk:
                raise TransportError("the member ended the stream", maybe_done=False)
            *lines, rest = (rest + chunk).split(b"\n")
            for line in filter(None, lines):
                yield _parse_result(line)


def _parse_result(line: bytes) -> dict[str, Any]:
    try:
        message = wire.parse_json(line)
    except ValueError as error:
        raise TransportError("the stream is not JSON", maybe_done=False) from error
    if "error" in message:
        raise_for(wire.parse_failure(200, line))
    result = message.get("result")
    return result if isinstance(result, dict) else {}
