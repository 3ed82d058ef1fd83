"""A cloud's files and settings: made once, kept, and apart from those of a second cloud."""

from __future__ import annotations

import ipaddress
import stat
from pathlib import Path

from ucloud.local.keeper import render_etcd_command
from ucloud.local.layout import Layout, device_tag, ensure_cloud, free_ports, new_ula_prefix


def test_made_once_and_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cloud")
    config = ensure_cloud(layout)
    token = layout.token_file.read_text()
    assert ensure_cloud(layout) == config
    assert layout.token_file.read_text() == token


def test_secrets_are_private(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "cloud")
    ensure_cloud(layout)
    for path in (layout.token_file, layout.config_file, layout.tls / "ca.key", layout.tls / "store.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_clouds_share_nothing(tmp_path: Path) -> None:
    first, second = ensure_cloud(Layout(tmp_path / "a")), ensure_cloud(Layout(tmp_path / "b"))
    assert first.network.tag != second.network.tag
    assert first.network.vxlan_port != second.network.vxlan_port
    assert first.network.ula_prefix != second.network.ula_prefix
    assert first.host.id != second.host.id
    assert abs(first.host.uid_base - second.host.uid_base) >= 1000


def test_ports_are_different_and_the_taken_one_is_left() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        ports = free_ports((port, port))
    assert port not in ports
    assert len(set(ports)) == 2


def test_the_tag_and_the_prefix() -> None:
    assert len(device_tag(Path("/var/lib/ucloud"))) == 3
    network = ipaddress.IPv6Network(new_ula_prefix())
    assert network.prefixlen == 48
    assert network.subnet_of(ipaddress.IPv6Network("fd00::/8"))


def test_etcd_wants_certificates_from_everybody(tmp_path: Path) -> None:
    command = render_etcd_command(ensure_cloud(Layout(tmp_path / "cloud")))
    assert {"--client-cert-auth", "--peer-client-cert-auth", "--pre-vote"} <= set(command)
    urls = [word for word in command if "-client-urls" in word or "-peer-urls" in word]
    assert all("=https://127.0.0.1" in word for word in urls)
