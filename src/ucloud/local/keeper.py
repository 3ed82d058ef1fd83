"""``ucloud etcd``: the parent of the etcd member on this machine, which tells guards whether that has a leader.

It starts its member again when that ends, and says meanwhile that it is stopped; it ends itself only when told to, or
when its member has never come up. A file ``etcd.hold`` in the run directory keeps the member stopped. The flags are
those that failover was measured with (short elections, pre-vote, large transactions).
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
from pathlib import Path

from ucloud.config import Config
from ucloud.errors import CommandFailed, DeadlineExceeded, Error
from ucloud.local.keeper_door import KeeperDoor
from ucloud.local.member import Member, MemberIds
from ucloud.system import files
from ucloud.system.append_log import open_append
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.run import Process, spawn

logger = logging.getLogger(__name__)

MEMBER_LOG = "etcd-member.log"  # the supervisor keeps it short
HOLD_FILE = "etcd.hold"

STOP_TIMEOUT_S = 10.0
# Without a quorum it looks for a successor for 5 s and more, and nobody can tell guards anything meanwhile.
_TERMINATE_S = 1.0
_LOOK_EVERY_S = 0.1
_STOPPED_EVERY_S = 0.02
_LEARN_EVERY_S = 1.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0


def render_etcd_command(config: Config) -> tuple[str, ...]:
    etcd, ca_file = config.etcd, str(config.store.ca_file)
    return (
        "etcd",
        f"--name={etcd.member}",
        f"--data-dir={etcd.data_directory}",
        f"--listen-client-urls={etcd.client_url}",
        f"--advertise-client-urls={etcd.client_url}",
        f"--listen-peer-urls={etcd.peer_url}",
        f"--initial-advertise-peer-urls={etcd.peer_url}",
        f"--initial-cluster={etcd.initial_cluster or f'{etcd.member}={etcd.peer_url}'}",
        f"--listen-metrics-urls={etcd.metrics_url}",
        "--client-cert-auth",
        f"--trusted-ca-file={ca_file}",
        f"--cert-file={etcd.cert_file}",
        f"--key-file={etcd.key_file}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={ca_file}",
        f"--peer-cert-file={etcd.cert_file}",
        f"--peer-key-file={etcd.key_file}",
        "--heartbeat-interval=50",
        "--election-timeout=500",
        "--pre-vote",
        "--max-txn-ops=1024",
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=1h",
        f"--quota-backend-bytes={etcd.quota_mib * 1024 * 1024}",
        "--logger=zap",
        "--log-level=warn",
    )


class Keeper:
    """Tends the member; used by the main thread, whose end ends the member as well."""

    def __init__(self, config: Config, member: Member, clock: Clock) -> None:
        self._config = config
        self._member = member
        self._clock = clock
        self._process: Process | None = None
        self._pause_s = _FIRST_PAUSE_S
        self._start_at_s = 0.0
        self._learn_at_s = 0.0
        self._was_well = False

    def turn(self) -> None:
        """Look once. Raises CommandFailed if the member ended and has never been well."""
        now_s = self._clock.monotonic_s()
        process = self._process
        if process is None:
            if now_s >= self._start_at_s and not self._hold_file.exists():
                self._start()
        elif process.poll() is not None:
            self._note_end(process, now_s)
        elif self._hold_file.exists():
            self.stop()
        elif now_s >= self._learn_at_s:
            self._learn_at_s = now_s + _LEARN_EVERY_S
            self._learn()

    def stop(self) -> None:
        """End the member in order, by force if it takes too long. Nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        for end, timeout_s in ((process.terminate, _TERMINATE_S), (process.kill, STOP_TIMEOUT_S)):
            deadline_s = self._clock.monotonic_s() + timeout_s
            end()
            while process.poll() is None and self._clock.monotonic_s() < deadline_s:
                self._clock.sleep(_STOPPED_EVERY_S)
            if process.poll() is not None:
                self._member.ended()
                return
        raise DeadlineExceeded("failed to stop etcd: it is killed but not gone", hint="it may hang on its disk")

    @property
    def _hold_file(self) -> Path:
        return self._config.host.run_directory / HOLD_FILE

    @property
    def _log_path(self) -> Path:
        return self._config.log.directory / MEMBER_LOG

    def _start(self) -> None:
        log = open_append(self._log_path)
        try:
            self._member.begins()  # before it could lead
            self._learn_at_s = 0.0
            self._process = spawn(render_etcd_command(self._config), log=log, new_session=False, die_with_parent=True)
        finally:
            os.close(log)

    def _note_end(self, process: Process, now_s: float) -> None:
        self._process = None
        self._member.ended()
        if not self._was_well:
            raise CommandFailed(f"etcd ended with {process.returncode}", hint=f"see {self._log_path}")
        logger.error("etcd ended with %s; it starts again in %g s", process.returncode, self._pause_s)
        self._start_at_s = now_s + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def _learn(self) -> None:
        """Ask the member who it is; once it said so it is well."""
        with contextlib.suppress(Error):
            self._member.learn()
            self._was_well = True
            self._pause_s = _FIRST_PAUSE_S
            self._learn_at_s = math.inf


def main(config: Config, stopping: threading.Event) -> int:
    """Keep etcd until ``stopping``. Returns the exit code."""
    files.ensure_directory(config.etcd.data_directory)
    clock = SystemClock()
    member = Member(config.etcd, config.store.ca_file, MemberIds.beside(config.etcd), clock)
    keeper = Keeper(config, member, clock)
    door = KeeperDoor(config.etcd, config.store.ca_file, member.answer, clock)
    door.start()
    try:
        while not stopping.wait(_LOOK_EVERY_S):
            keeper.turn()
    finally:
        keeper.stop()
        door.close()
    return 0
