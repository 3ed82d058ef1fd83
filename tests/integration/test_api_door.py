"""The API's client of the agents' doors, against the agent's own door with the cloud's own certificates."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ucloud.agent.door import Door
from ucloud.api.door import AgentDoor
from ucloud.config import Config, HostSection, StoreSection
from ucloud.errors import MissingPrerequisite, NotFound, Unavailable
from ucloud.local.certificates import ensure_authority, ensure_certificate


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
    door = Door(config)
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
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
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
