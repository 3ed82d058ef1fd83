"""Where a cloud of one machine keeps what, and the settings that ``ucloud up`` writes at its first start.

Everything is below one directory. Ports, device tag, VXLAN port and uids are chosen so that a second cloud with
another directory can run beside the first.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from ucloud.config import (
    ApiSection,
    Config,
    EtcdSection,
    GuardSection,
    HostSection,
    LogSection,
    NetworkSection,
    StoreSection,
    load_config,
    render_config,
)
from ucloud.config.sections import DEFAULT_STATE_DIRECTORY
from ucloud.local import certificates
from ucloud.system import files
from ucloud.system.identity import new_id

UIDS_PER_CLOUD = 1000
FIRST_UID = 600_000
_VXLAN_PORT = 4789
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one cloud on this machine."""

    directory: Path

    @property
    def config_file(self) -> Path:
        return self.directory / "ucloud.toml"

    @property
    def client_file(self) -> Path:
        return self.directory / "client.toml"

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    @property
    def tls(self) -> Path:
        return self.directory / "tls"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def logs(self) -> Path:
        return self.directory / "log"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"


def ensure_cloud(layout: Layout) -> Config:
    """The cloud's settings; made, with its certificates and token, at the first call. Safe to interrupt."""
    for directory in (layout.directory, layout.run, layout.logs, layout.cache):
        files.ensure_directory(directory)
    layout.directory.chmod(0o711)  # QEMU runs as other users and must reach its own folder below
    layout.run.chmod(0o711)
    certificates.ensure_authority(layout.tls)
    for name in ("etcd", "store", "host"):
        certificates.ensure_certificate(layout.tls, name)
    if not layout.token_file.exists():
        files.write_atomic(layout.token_file, secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
    if not layout.config_file.exists():
        files.write_atomic(layout.config_file, render_config(new_config(layout)))
    config = load_config(layout.config_file)
    files.write_if_changed(layout.client_file, render_client_profile(layout, config))
    return config


def new_config(layout: Layout) -> Config:
    """Settings for a new cloud in this directory, with ports that are free now."""
    tag = device_tag(layout.directory)
    number = int(tag, 16)
    ports = free_ports((8700, 8701, 8702, 2379, 2380, 2381, 2382))
    tls = layout.tls
    client_url = f"https://127.0.0.1:{ports[3]}"
    return Config(
        store=StoreSection(
            endpoints=(client_url,),
            ca_file=tls / "ca.pem",
            cert_file=tls / "store.pem",
            key_file=tls / "store.key",
            password_file=layout.directory / "store.password",
        ),
        etcd=EtcdSection(
            data_directory=layout.directory / "etcd",
            client_url=client_url,
            peer_url=f"https://127.0.0.1:{ports[4]}",
            metrics_url=f"http://127.0.0.1:{ports[5]}",
            keeper_listen=f"127.0.0.1:{ports[6]}",
            cert_file=tls / "etcd.pem",
            key_file=tls / "etcd.key",
        ),
        api=ApiSection(
            listen=f"127.0.0.1:{ports[0]}",
            stream_listen=f"127.0.0.1:{ports[1]}",
            token_file=layout.token_file,
        ),
        host=HostSection(
            id=new_id("host"),
            state_directory=layout.directory,
            run_directory=layout.run,
            pool_directory=layout.directory / "pool",
            door_listen=f"127.0.0.1:{ports[2]}",
            cert_file=tls / "host.pem",
            key_file=tls / "host.key",
            uid_base=FIRST_UID + number * UIDS_PER_CLOUD,
        ),
        network=NetworkSection(
            tag=tag,
            vxlan_port=_VXLAN_PORT if layout.directory == DEFAULT_STATE_DIRECTORY else 40_000 + number,
            ula_prefix=new_ula_prefix(),
        ),
        guard=GuardSection(fence_s=0.0),  # one machine: its VMs have nowhere to go
        log=LogSection(directory=layout.logs),
    )


def render_client_profile(layout: Layout, config: Config) -> str:
    return f'url = "http://{config.api.listen}/v1"\ntoken_file = "{layout.token_file}"\n'


def device_tag(directory: Path) -> str:
    """Three hex digits that mark the devices of the cloud in ``directory``."""
    return hashlib.sha256(str(directory).encode()).hexdigest()[:3]


def new_ula_prefix() -> str:
    """A random /48 (RFC 4193: fd and 40 random bits)."""
    digits = "fd" + secrets.token_hex(5)
    return ":".join(digits[start : start + 4] for start in (0, 4, 8)) + "::/48"


def free_ports(preferred: tuple[int, ...]) -> tuple[int, ...]:
    """The preferred loopback ports where they are free, others where not; all different."""
    held: list[socket.socket] = []
    try:
        for port in preferred:
            held.append(_bind(port) or _bind(0) or socket.socket())
        return tuple(one.getsockname()[1] for one in held)
    finally:
        for one in held:
            one.close()


def is_port_free(address: str, port: int) -> bool:
    """Whether a server could listen there now."""
    listener = _bind(port, address)
    if listener is None:
        return False
    listener.close()
    return True


def _bind(port: int, address: str = "127.0.0.1") -> socket.socket | None:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener
