"""The settings, one dataclass per section of the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path

from ucloud.errors import InvalidInput

FENCE_S_RANGE = (2.0, 60.0)
LOG_LEVELS = ("debug", "info", "warning", "error")
DEFAULT_STATE_DIRECTORY = Path("/var/lib/ucloud")


@dataclass(frozen=True, slots=True)
class StoreSection:
    """How to reach etcd. ``password_file`` is used if ``user`` is set."""

    endpoints: tuple[str, ...] = ("https://[::1]:2379",)
    ca_file: Path = DEFAULT_STATE_DIRECTORY / "tls/ca.pem"
    cert_file: Path = DEFAULT_STATE_DIRECTORY / "tls/store.pem"
    key_file: Path = DEFAULT_STATE_DIRECTORY / "tls/store.key"
    user: str = ""
    password_file: Path = DEFAULT_STATE_DIRECTORY / "store.password"
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class EtcdSection:
    """The etcd member on this machine, if it has one. Clients and peers need a certificate; metrics are local.

    ``initial_cluster`` is what a new cluster of several members begins with ("": this one alone). At ``keeper_listen``
    the member's parent tells guards whether it has a leader.
    """

    member: str = "m1"
    data_directory: Path = DEFAULT_STATE_DIRECTORY / "etcd"
    client_url: str = "https://127.0.0.1:2379"
    peer_url: str = "https://127.0.0.1:2380"
    metrics_url: str = "http://127.0.0.1:2381"
    initial_cluster: str = ""
    keeper_listen: str = "127.0.0.1:2382"
    cert_file: Path = DEFAULT_STATE_DIRECTORY / "tls/etcd.pem"
    key_file: Path = DEFAULT_STATE_DIRECTORY / "tls/etcd.key"
    quota_mib: int = 2048


@dataclass(frozen=True, slots=True)
class ApiSection:
    """The API process and its sibling for long-lived streams. ``listen`` is ``address:port``."""

    listen: str = "127.0.0.1:8700"
    stream_listen: str = "127.0.0.1:8701"
    token_file: Path = DEFAULT_STATE_DIRECTORY / "token"
    threads: int = 16
    streams_limit: int = 200
    body_limit_kib: int = 1024
    image_limit_gib: int = 64
    download_allowed_hosts: tuple[str, ...] = ()
    event_days: int = 7


@dataclass(frozen=True, slots=True)
class SchedulerSection:
    """Overcommit is claimed ÷ physical; ``election_ttl_s`` is how long a dead leader is waited for.

    ``failover_share_percent``: if more of all hosts than that (and more than one) are lost within ten minutes, nothing
    is taken over without somebody's word. ``migrations_per_host`` are those that one host sends or takes at a time.
    """

    cpu_overcommit: float = 4.0
    memory_overcommit: float = 1.0
    memory_reserve_mib: int = 1024
    election_ttl_s: int = 2
    failover_share_percent: int = 10
    migrations_per_host: int = 2
    migration_timeout_s: int = 600
    migration_bandwidth_mib_s: int = 0


@dataclass(frozen=True, slots=True)
class HostSection:
    """This host. ``accelerator`` is auto, kvm or tcg. ``uid_base`` is the first uid for VMs, one each: every host of a
    site has a range of its own. ``pool_kind`` is directory or fenced; hosts with the same ``pool_id`` share their
    pool ("": it is this host's alone). ``pool_service`` is the address of a fenced pool's storage service.
    """

    id: str = "host-local"
    state_directory: Path = DEFAULT_STATE_DIRECTORY
    run_directory: Path = DEFAULT_STATE_DIRECTORY / "run"
    pool_directory: Path = DEFAULT_STATE_DIRECTORY / "pool"
    door_listen: str = "127.0.0.1:8702"
    cert_file: Path = DEFAULT_STATE_DIRECTORY / "tls/host.pem"
    key_file: Path = DEFAULT_STATE_DIRECTORY / "tls/host.key"
    accelerator: str = "auto"
    uid_base: int = 600_000
    pool_id: str = ""
    pool_kind: str = "directory"
    pool_service: str = ""
    pool_reserve_percent: int = 5
    serial_log_kib: int = 1024


@dataclass(frozen=True, slots=True)
class NetworkSection:
    """``tag`` (three hex digits) marks this cloud's devices on the machine, so that two clouds can share it.

    ``underlay_device`` "" means: make a bridge of our own, so that nothing leaves this machine. ``underlay_address`` is
    where other hosts send VXLAN packets to. ``public_prefixes`` are
    the site's own: a network may have any private subnet, but a public one only inside these.
    """

    tag: str = "0a0"
    underlay_device: str = ""
    underlay_address: str = ""
    underlay_mtu: int = 1500
    vxlan_port: int = 4789
    group_prefix: str = "ff05::"
    ula_prefix: str = "fd00:7563:6c6f::/48"
    public_prefixes: tuple[str, ...] = ()
    forwarders: tuple[str, ...] = ()
    domain: str = "internal"

    def __post_init__(self) -> None:
        for prefix in (self.ula_prefix, *self.public_prefixes):
            try:
                ip_network(prefix)
            except ValueError as error:
                raise InvalidInput(f"failed to read a prefix of [network]: {error}", code="bad_config") from error


@dataclass(frozen=True, slots=True)
class GuardSection:
    """``fence_s`` is F of docs/failover.md: without evidence for so long, what may be started elsewhere is killed,
    within ``kill_s`` (K) at most; 0: never.
    ``reset_machine``: if something cannot be killed within K, reset this machine.
    """

    fence_s: float = 3.0
    kill_s: float = 0.25
    reset_machine: bool = False

    def __post_init__(self) -> None:
        if self.fence_s and not FENCE_S_RANGE[0] <= self.fence_s <= FENCE_S_RANGE[1]:
            raise InvalidInput(
                f"failed to use guard.fence_s {self.fence_s:g}: it is neither 0 nor from 2 to 60 seconds",
                field="guard.fence_s",
                code="bad_config",
            )


@dataclass(frozen=True, slots=True)
class LogSection:
    """Logs are JSON lines; a file is turned over at ``limit_kib`` and one old file is kept. ``history_socket`` ("":
    none) gets a datagram for each thing that a checker of safety must know; a lab listens there.
    """

    directory: Path = DEFAULT_STATE_DIRECTORY / "log"
    level: str = "info"
    limit_kib: int = 10_240
    history_socket: str = ""

    def __post_init__(self) -> None:
        if self.level not in LOG_LEVELS:
            raise InvalidInput(
                f"failed to use log.level {self.level!r}: it is none of {', '.join(LOG_LEVELS)}",
                field="log.level",
                code="bad_config",
            )


@dataclass(frozen=True, slots=True)
class Config:
    store: StoreSection = field(default_factory=StoreSection)
    etcd: EtcdSection = field(default_factory=EtcdSection)
    api: ApiSection = field(default_factory=ApiSection)
    scheduler: SchedulerSection = field(default_factory=SchedulerSection)
    host: HostSection = field(default_factory=HostSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    guard: GuardSection = field(default_factory=GuardSection)
    log: LogSection = field(default_factory=LogSection)
