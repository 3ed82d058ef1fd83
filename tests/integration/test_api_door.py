"""The API's client of the agents' doors, against the agent's own door with the cloud's own certificates."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ucloud.agent.blobs import blob_opener
from ucloud.agent.door import Door, Offers
from ucloud.api.door import AgentDoor
from ucloud.config import Config, HostSection, StoreSection
from ucloud.console.tunnel import open_tunnel
from ucloud.errors import MissingPrerequisite, NotFound, Unavailable
from ucloud.hypervisor.directory import VmDirectories
from ucloud.local.certificates import ensure_authority, ensure_certificate
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.system.door import door_context
from ucloud.system.readable import wait_readable
from ucloud.system.unix_socket import listen_unix


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tls = tmp_path / "tls"
    ensure_authority(tls)
    for name in ("store", "host"):
        ensure_certificate(tls, name)
    return Config(
        store=StoreSection(ca_file=tls / "ca.pem", cert_file=tls / "store.pem", key_file=tls / "store.key"),
        host=HostSection(
            state_directory=tmp_path,
            run_directory=tmp_path,
            pool_directory=tmp_path / "pool",
            door_listen="127.0.0.1:0",
            cert_file=tls / "host.pem",
            key_file=tls / "host.key",
        ),
    )


@pytest.fixture
def url(config: Config) -> Iterator[str]:
    files = VmDirectories(config.host.state_directory, config.host.run_directory, host_boot_id="")
    pool = DirectoryPool(config.host.pool_directory, reserve_percent=0)
    door = Door(config, Offers(files.serial_log, files.serial_socket, pool.open_blob))
    door.start()
    yield f"https://127.0.0.1:{door.port}"
    door.stop()


def test_the_end_of_a_log(config: Config, url: str, tmp_path: Path) -> None:
    log = tmp_path / "vms" / "vm-1" / "serial.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * 1000 + b"login: ")
    assert AgentDoor(config.store).serial_log(url, "vm-1", 7) == b"login: "


def test_a_vm_that_the_host_does_not_have(config: Config, url: str) -> None:
    with pytest.raises(NotFound):
        AgentDoor(config.store).serial_log(url, "vm-2", 7)


def test_a_host_that_does_not_answer(config: Config) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unavailable) as caught:
            AgentDoor(config.store, timeout_s=0.2).serial_log(url, "vm-1", 7)
    assert caught.value.code == "agent_unavailable"
    with pytest.raises(Unavailable):
        AgentDoor(config.store).serial_log(url, "vm-1", 7)


def test_an_agent_of_another_cloud_is_not_believed(config: Config, url: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    ensure_authority(other)
    ensure_certificate(other, "store")
    files = replace(config.store, ca_file=other / "ca.pem")
    with pytest.raises(Unavailable, match="not of this cloud"):
        AgentDoor(files).serial_log(url, "vm-1", 7)


def test_an_api_of_another_cloud_is_not_answered(config: Config, url: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    ensure_authority(other)
    ensure_certificate(other, "store")
    files = replace(config.store, cert_file=other / "store.pem", key_file=other / "store.key")
    with pytest.raises(Unavailable):
        AgentDoor(files).serial_log(url, "vm-1", 7)


def test_missing_certificates_are_told(config: Config) -> None:
    with pytest.raises(MissingPrerequisite):
        AgentDoor(replace(config.store, key_file=Path("/nonexistent")))


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_a_blob_in_whatever_format_it_is_here(config: Config, url: str, image_format: str) -> None:
    digest = "a" * 64
    (config.host.pool_directory / "images" / f"{digest}.{image_format}").write_bytes(b"blob")
    with blob_opener(config)(f"{url}/blobs/{digest}") as stream:
        assert stream.read() == b"blob"
    with pytest.raises(Unavailable, match="404"):
        blob_opener(config)(f"{url}/blobs/{'b' * 64}")


def test_a_console_at_a_path_longer_than_a_socket_name_may_be(config: Config, tmp_path: Path) -> None:
    place = tmp_path / ("long" * 40) / "serial.sock"
    place.parent.mkdir()
    door = Door(config, Offers(lambda _: place, lambda _: place, lambda *_: place.open("rb")))
    door.start()
    files = config.store
    context = door_context(files.ca_file, files.cert_file, files.key_file)
    with listen_unix(place) as listener:
        tunnel = open_tunnel(f"https://127.0.0.1:{door.port}", "/vms/vm-1/console", context)
        serial, _ = listener.accept()
        with serial:
            serial.sendall(b"login: ")
            assert wait_readable((tunnel.fileno(),), 5.0)
            assert tunnel.receive() == b"login: "
        tunnel.close()
    door.stop()
