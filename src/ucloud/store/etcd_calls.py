"""Calls to an etcd cluster: one question, one answer, within a deadline, with failover and login.

Owns the token. Must hold: what may not be repeated (``repeatable=False``) is sent at most once unless the
member surely did not carry it out; no password, token or lease id appears in an error.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ucloud.errors import Compacted, OutcomeUnknown, StoreError, StoreUnavailable
from ucloud.store import etcd_wire as wire
from ucloud.store.api import LEASE_ENDED
from ucloud.store.etcd_http import Connection, Endpoint, Head, TransportError
from ucloud.store.etcd_members import Members, Tls
from ucloud.system.clock import Clock

_PAUSE_S = 0.1
_LEAST_SHARE_S = 0.5
# A member that is well answers in milliseconds: the others are asked before the first has used up its share.
_FIRST_SHARE_S = 1.0
# A member without a leader then refuses at once, instead of holding the call until its own time-out.
_HEADERS = {"Content-Type": "application/json", "Grpc-Metadata-hasleader": "true"}
_HINT = "check that etcd runs and that its endpoints are right: 'ucloud status'"


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of etcd's own authentication."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Question:
    path: str
    payload: bytes = field(repr=False)
    repeatable: bool = True


class Refused(Exception):
    """A member answered with an error."""

    def __init__(self, failure: wire.Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def question(path: str, body: dict[str, Any], *, repeatable: bool = True) -> Question:
    return Question(path, json.dumps(body).encode(), repeatable)


class Calls:
    """Thread-safe. One per store, shared with its watches."""

    def __init__(
        self,
        endpoints: Sequence[str],
        tls: Tls | None,
        credentials: Credentials | None,
        *,
        timeout_s: float,
        clock: Clock,
    ) -> None:
        self.members = Members(endpoints, tls, clock, lost_after_s=timeout_s / 2)
        self.clock = clock
        self.timeout_s = timeout_s
        self._credentials = credentials
        self._token: str | None = None if credentials else ""  # None: not known, "": none is needed
        self._login_lock = threading.Lock()
        self._closed = threading.Event()
        self._highest_revision = 0

    def call(self, asked: Question) -> dict[str, Any]:
        """The answer of the first member that gives one. Raises the errors of ``Store``."""
        deadline_s = self.clock.monotonic_s() + self.timeout_s
        known_revision = self._highest_revision
        cause = "the store is closed"
        longest_s = _FIRST_SHARE_S
        while not self._closed.is_set():
            endpoints = self.members.in_order()
            for index, endpoint in enumerate(endpoints):
                now_s = self.clock.monotonic_s()
                share_s = _share_s(deadline_s - now_s, others=len(endpoints) - index - 1, longest_s=longest_s)
                try:
                    answer = self._ask(endpoint, asked, min(now_s + share_s, deadline_s), deadline_s)
                    return self._checked(asked, answer, known_revision)
                except TransportError as error:
                    self.members.leave_alone(endpoint)
                    cause = f"{endpoint}: {error}"
                    if error.maybe_done and not asked.repeatable:
                        raise OutcomeUnknown(f"failed to learn the outcome of a write: {cause}") from error
            if self.clock.monotonic_s() + _PAUSE_S >= deadline_s:
                break
            self._closed.wait(_PAUSE_S)
            longest_s = self.timeout_s
        raise StoreUnavailable(f"failed to reach etcd: {cause}", hint=_HINT)

    def _checked(self, asked: Question, answer: dict[str, Any], known_revision: int) -> dict[str, Any]:
        """The answer, if the store knows all that it has told us before: reads and writes are linearizable."""
        if asked.path not in (wire.RANGE, wire.TXN):
            return answer
        revision = wire.parse_revision(answer)
        if revision < known_revision:
            raise StoreError(
                f"failed to trust etcd: it is at revision {revision} and was at {known_revision}",
                hint="its data was lost or restored from a backup: stop the cloud, check etcd, start again",
                code="store_went_back",
            )
        self._highest_revision = max(self._highest_revision, revision)
        return answer

    def open_stream(self, endpoint: Endpoint, asked: Question, *, deadline_s: float) -> Connection:
        """A connection of its own whose answer is a stream of chunks. Raises TransportError or StoreError."""
        for attempt in range(2):
            token = self._current_token(endpoint, deadline_s)
            connection = self.members.take(endpoint, deadline_s=deadline_s, fresh=True)
            try:
                _begin(connection, asked, token, deadline_s)
                return connection
            except Refused as refused:
                connection.close()
                self._log_in_again_or_raise(refused.failure, endpoint, attempt, token, deadline_s)
            except BaseException:
                connection.close()
                raise
        raise AssertionError("the second refusal raises")

    def renew_login(self, endpoint: Endpoint, *, deadline_s: float) -> bool:
        """For a refusal that only a stream's content tells; False if there is no user to log in."""
        if self._credentials is None:
            return False
        self._log_in(self._token, endpoint, deadline_s)
        return True

    def is_member_well(self, endpoint: Endpoint, *, timeout_s: float) -> bool:
        """Whether the member answers and knows a leader. A frozen one is still acknowledged by its kernel."""
        deadline_s = self.clock.monotonic_s() + timeout_s
        try:
            status = self._exchange(endpoint, question(wire.STATUS, {}), "", deadline_s, deadline_s)
        except (TransportError, Refused):
            return False
        return int(status.get("leader", 0)) != 0

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    def close(self) -> None:
        self._closed.set()
        self.members.close()

    def _ask(self, endpoint: Endpoint, asked: Question, share_end_s: float, deadline_s: float) -> dict[str, Any]:
        """Ask one member, logging in once more if it wants that."""
        # A write that was sent is waited for until the end: giving up early would only make it unknown.
        answer_by_s = share_end_s if asked.repeatable else deadline_s
        for attempt in range(2):
            token = self._current_token(endpoint, share_end_s)
            try:
                return self._exchange(endpoint, asked, token, share_end_s, answer_by_s)
            except Refused as refused:
                self._log_in_again_or_raise(refused.failure, endpoint, attempt, token, share_end_s)
        raise AssertionError("the second refusal raises")

    def _exchange(
        self, endpoint: Endpoint, asked: Question, token: str, connect_by_s: float, answer_by_s: float
    ) -> dict[str, Any]:
        connection = self.members.take(endpoint, deadline_s=connect_by_s)
        whole = False
        try:
            head = _begin(connection, asked, token, answer_by_s)
            answer = wire.parse_json(connection.read_body(head, deadline_s=answer_by_s))
            whole = head.keep_open
        except ValueError as error:
            raise TransportError("its answer is not JSON", maybe_done=True) from error
        finally:
            if whole:
                self.members.give_back(connection)
            else:
                connection.close()
        return answer

    def _log_in_again_or_raise(
        self, failure: wire.Failure, endpoint: Endpoint, attempt: int, token: str, deadline_s: float
    ) -> None:
        # Without a token some calls are answered "permission denied" instead: users were switched on meanwhile.
        needed = wire.is_login_needed(failure) or (not token and failure.code == wire.Code.DENIED)
        if self._credentials is None or attempt > 0 or not needed:
            raise_for(failure)
        self._log_in(token, endpoint, deadline_s)

    def _current_token(self, endpoint: Endpoint, deadline_s: float) -> str:
        token = self._token
        return self._log_in(None, endpoint, deadline_s) if token is None else token

    def _log_in(self, refused_token: str | None, endpoint: Endpoint, deadline_s: float) -> str:
        """A new token, unless another thread fetched one meanwhile."""
        left_s = deadline_s - self.clock.monotonic_s()
        if not self._login_lock.acquire(timeout=max(left_s, 0.0)):
            raise TransportError("no login in time", maybe_done=False)
        try:
            if self._token is None or self._token == refused_token:
                self._token = self._fetch_token(endpoint, deadline_s)
            return self._token
        finally:
            self._login_lock.release()

    def _fetch_token(self, endpoint: Endpoint, deadline_s: float) -> str:
        if self._credentials is None:
            return ""
        body = {"name": self._credentials.user, "password": self._credentials.password}
        try:
            answer = self._exchange(endpoint, question(wire.AUTHENTICATE, body), "", deadline_s, deadline_s)
        except Refused as refused:
            if "authentication is not enabled" in refused.failure.message:
                return ""
            raise_for(refused.failure)
        except TransportError as error:
            # The caller's own request was not sent yet.
            raise TransportError(f"no login: {error}", maybe_done=False) from error
        return str(answer.get("token", ""))


def _share_s(left_s: float, *, others: int, longest_s: float) -> float:
    """How long one member may take, if ``others`` come after it: the last has all that is left."""
    return max(min(left_s / (others + 1), longest_s), _LEAST_SHARE_S) if others else max(left_s, _LEAST_SHARE_S)


def _begin(connection: Connection, asked: Question, token: str, deadline_s: float) -> Head:
    """Send, and read the answer's head. Raises Refused or TransportError."""
    headers = {**_HEADERS, "Authorization": token} if token else _HEADERS
    connection.send(asked.path, asked.payload, headers, deadline_s=deadline_s)
    head = connection.read_head(deadline_s=deadline_s)
    if head.status == 200:
        return head
    raise Refused(wire.parse_failure(head.status, connection.read_body(head, deadline_s=deadline_s)))


def raise_for(failure: wire.Failure) -> NoReturn:
    """The error of ``Store`` for what a member answered; TransportError if another member may do better."""
    message = failure.message.removeprefix("etcdserver: ").removeprefix("mvcc: ") or f"HTTP {failure.status}"
    if wire.is_surely_not_done(failure) or wire.is_maybe_done(failure):
        raise TransportError(message, maybe_done=wire.is_maybe_done(failure))
    if "compacted" in message:
        raise Compacted("failed to read the store's history: the revision is compacted", hint="list again")
    if wire.is_login_needed(failure) or "authentication failed" in message:
        raise StoreError(
            "failed to log in to etcd: user or password refused",
            code="store_login_refused",
            hint="check the user and password file of this host",
        )
    if failure.code == wire.Code.DENIED:
        raise StoreError("failed to use etcd: the user may not touch this key", code="store_denied")
    if "lease not found" in message:
        raise StoreError("failed to use a lease: it has ended", code=LEASE_ENDED)
    if "space exceeded" in message:
        raise StoreError(
            "failed to write to etcd: its database is full",
            code="store_full",
            hint="compact, defragment and disarm the alarm, or raise the quota",
        )
    raise StoreError(f"failed to use etcd: {message}")
