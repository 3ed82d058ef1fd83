"""``ucloud etcd``: the parent of the etcd member on this machine. It ends with its member; the supervisor restarts it.

The flags are those that failover was measured with (short elections, pre-vote, large transactions).
"""

from __future__ import annotations

import os
import threading

from ucloud.config import Config
from ucloud.errors import CommandFailed
from ucloud.system import files
from ucloud.system.append_log import open_append
from ucloud.system.run import spawn

MEMBER_LOG = "etcd-member.log"  # the supervisor keeps it short

STOP_TIMEOUT_S = 10.0


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
        f"--initial-cluster={etcd.member}={etcd.peer_url}",
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


def main(config: Config, stopping: threading.Event) -> int:
    """Run etcd until it ends or ``stopping``. Returns its exit code."""
    files.ensure_directory(config.etcd.data_directory)
    log_path = config.log.directory / MEMBER_LOG
    log = open_append(log_path)
    try:
        member = spawn(render_etcd_command(config), log=log, new_session=False, die_with_parent=True)
    finally:
        os.close(log)
    try:
        while member.poll() is None and not stopping.wait(0.2):
            pass
    finally:
        if member.poll() is None:
            member.terminate()
            member.wait(STOP_TIMEOUT_S)
    if stopping.is_set():
        return 0
    raise CommandFailed(f"etcd ended with {member.returncode}", hint=f"see {log_path}")
