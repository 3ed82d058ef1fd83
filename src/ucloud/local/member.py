"""What the keeper knows of its etcd member: who it is, whether it runs, and whether it has a leader.

Asks the metrics listener, which answers also where the client port hangs, and remembers the ids in a file beside the
data. Must hold: "no leader" and "stopped" are said only if they were so after the question came; whatever cannot be
told is not said.
"""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path

from ucloud.config.sections import EtcdSection
from ucloud.guard.rules import KeeperAnswer, LeaderState
from ucloud.store.etcd_calls import Calls, question
from ucloud.store.etcd_http import TransportError, connect, parse_endpoint
from ucloud.store.etcd_members import Tls
from ucloud.store.etcd_wire import STATUS
from ucloud.system import files
from ucloud.system.clock import Clock

METRICS_TIMEOUT_S = 0.2  # a guard's round of questions lasts 0.25 s
_STATUS_TIMEOUT_S = 0.5
_HAS_LEADER = re.compile(rb"^etcd_server_has_leader (\d)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MemberIds:
    """Where a member's ids are remembered, for when it cannot say them: alone, its client port hangs."""

    path: Path
    data_directory: Path

    @classmethod
    def beside(cls, etcd: EtcdSection) -> MemberIds:
        return cls(etcd.data_directory.parent / f"keeper-{etcd.member}.json", etcd.data_directory)

    def read(self) -> tuple[str, str] | None:
        """Cluster and member id. None if they are not known, or were those of data that is gone."""
        if not (self.data_directory / "member").exists():
            return None
        try:
            plain = files.read_json(self.path)
            return (str(plain["cluster_id"]), str(plain["member_id"])) if plain else None
        except (ValueError, TypeError, KeyError):
            return None

    def write(self, ids: tuple[str, str]) -> None:
        files.write_json(self.path, {"cluster_id": ids[0], "member_id": ids[1]})


class Member:
    """``answer`` may be called by any thread; the rest by the keeper's main thread."""

    def __init__(self, etcd: EtcdSection, ca_file: Path, ids: MemberIds, clock: Clock) -> None:
        self._etcd = etcd
        self._tls = Tls(ca_file, etcd.cert_file, etcd.key_file)
        self._remembered = ids
        self._ids = ids.read()
        self._clock = clock
        self._runs = False
        self._asking = threading.Lock()
        self._asked_at_s = -1.0
        self._has_leader: bool | None = None

    def begins(self) -> None:
        """It is about to be started."""
        self._runs = True

    def ended(self) -> None:
        """It was reaped."""
        self._runs = False

    def learn(self) -> None:
        """Ask it for its ids. Raises Error if it does not say them."""
        calls = Calls([self._etcd.client_url], self._tls, None, timeout_s=_STATUS_TIMEOUT_S, clock=self._clock)
        try:
            header = calls.call(question(STATUS, {}))["header"]
        finally:
            calls.close()
        ids = (str(header["cluster_id"]), str(header["member_id"]))
        if ids != self._ids:
            self._remembered.write(ids)
            self._ids = ids

    def answer(self) -> KeeperAnswer | None:
        """What is so now; None if it cannot be told."""
        ids, ran_before = self._ids, self._runs
        if ids is None:
            return None
        has_leader = self._ask_metrics()
        if has_leader is None:
            # Whoever still listens there may be a member of an earlier keeper: of that nothing is known.
            stopped = not ran_before and not self._runs and not self._listens()
            return KeeperAnswer(*ids, LeaderState.STOPPED) if stopped else None
        if not ran_before:
            return None
        return KeeperAnswer(*ids, LeaderState.LEADER if has_leader else LeaderState.NO_LEADER)

    def _ask_metrics(self) -> bool | None:
        """Whether the member has a leader, by a question that was put after this call; None for no answer.

        Many guards ask at once: those who wait for their turn share the next question's answer.
        """
        called_at_s = self._clock.monotonic_s()
        with self._asking:
            if self._asked_at_s <= called_at_s:
                self._asked_at_s = self._clock.monotonic_s()
                self._has_leader = self._fetch(self._asked_at_s + METRICS_TIMEOUT_S)
            return self._has_leader

    def _fetch(self, until_s: float) -> bool | None:
        with contextlib.suppress(TransportError):
            connection = connect(parse_endpoint(self._etcd.metrics_url), None, self._clock, deadline_s=until_s)
            try:
                connection.send("/metrics", b"", {"Connection": "close"}, deadline_s=until_s, method="GET")
                head = connection.read_head(deadline_s=until_s)
                found = _HAS_LEADER.search(connection.read_body(head, deadline_s=until_s))
            finally:
                connection.close()
            if found is not None and head.status == 200:
                return found.group(1) == b"1"
        return None

    def _listens(self) -> bool:
        """Whether anybody takes connections where the metrics are."""
        until_s = self._clock.monotonic_s() + METRICS_TIMEOUT_S
        try:
            connect(parse_endpoint(self._etcd.metrics_url), None, self._clock, deadline_s=until_s).close()
        except TransportError:
            return False
        return True
