"""The metadata process against impolite guests, and when networks come and go under it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.conftest import require
from tests.integration.guest_clients import fetch
from tests.integration.lab_host import Guest, LabHost, make_network, make_nic, make_vm, wait_for
from ucloud.metadata.server import CONNECTION_TIMEOUT_S, CONNECTIONS_PER_CALLER
from ucloud.model.devices import gateway_ipv6, network_devices
from ucloud.model.wanted import WantedNetwork
from ucloud.system.namespace import remove_namespace

KEY = "ssh-ed25519 AAAA key"


@dataclass(frozen=True, slots=True)
class World:
    host: LabHost
    network: WantedNetwork
    guest: Guest
    other: Guest

    @property
    def address(self) -> str:
        return gateway_ipv6(self.network.ipv6_prefix)

    def talk(self, request: bytes, *, guest: Guest | None = None) -> bytes:
        """All that comes back, also if the connection is reset at the end."""

        def work() -> bytes:
            answer = b""
            with socket.create_connection((self.address, 80), timeout=CONNECTION_TIMEOUT_S + 3) as door:
                try:
                    door.sendall(request)
                    while part := door.recv(65536):
                        answer += part
                except ConnectionError:
                    pass
            return answer

        return (guest or self.guest).do(work)

    def keys(self) -> bytes:
        return self.guest.do(lambda: fetch(self.address, "/ssh-keys"))[1]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    for part in ("root", "ip", "nft", "dnsmasq"):
        require(part)
    with LabHost() as host:
        network = make_network("main", 100)
        nics = [make_nic(network), make_nic(network)]
        guests = [host.plug_guest(nic) for nic in nics]
        for name, nic in zip(("a", "b"), nics, strict=True):
            host.metadata.write_vm_documents(make_vm(name, nic, KEY), bytes(64 * 1024))
        host.carry([network], nics)
        host.start_metadata()
        host.metadata.notify()
        one = World(host, network, guests[0], guests[1])
        for guest in guests:
            guest.add_address(f"{guest.nic.ipv6}/64")
            wait_for(lambda guest=guest: guest.connects(one.address, 80))
        yield one


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /ssh-keys HTTP/1.1\r\n\r\n", b"200"),
        (b"GET /ssh-keys HTTP/1.0\n\n", b"200"),
        (b"POST /ssh-keys HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345", b"405"),
        (b"GET /ssh-keys HTTP/2.0\r\n\r\n", b"505"),
        (b"\x16\x03\x01\x02\r\n\r\n", b"400"),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /%00%ff HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /ssh-keys HTTP/1.1\r\nA: " + bytes(20_000), b"431"),
    ],
)
def test_odd_requests(world: World, request_bytes: bytes, status: bytes) -> None:
    answer = world.talk(request_bytes)

    assert answer.startswith(b"HTTP/1.1 " + status) or (status == b"431" and not answer)
    assert world.keys() == f"{KEY}\n".encode()


def test_a_megabyte_of_headers_does_not_hurt(world: World) -> None:
    world.talk(b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200_000)

    assert world.keys() == f"{KEY}\n".encode()


def test_large_user_data(world: World) -> None:
    assert len(world.guest.do(lambda: fetch(world.address, "/openstack/latest/user_data"))[1]) == 64 * 1024


def test_a_slow_request_ends_at_its_deadline(world: World) -> None:
    assert world.talk(b"GET / HTTP/1.1\r\n") == b""


def test_one_guest_cannot_take_all_connections(world: World) -> None:
    def open_many() -> list[socket.socket]:
        return [socket.create_connection((world.address, 80), timeout=1) for _ in range(CONNECTIONS_PER_CALLER * 3)]

    doors = world.other.do(open_many)
    try:
        assert world.keys() == f"{KEY}\n".encode()
        assert sum(_is_closed(door) for door in doors) >= CONNECTIONS_PER_CALLER * 2
    finally:
        for door in doors:
            door.close()


def _is_closed(door: socket.socket) -> bool:
    door.settimeout(0.2)
    try:
        return door.recv(1) == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def test_two_claims_to_an_address_get_nothing(world: World) -> None:
    world.host.metadata.write_vm_documents(make_vm("thief", world.guest.nic, "ssh-ed25519 BBBB thief"), None)
    world.host.metadata.notify()
    try:
        assert world.guest.do(lambda: fetch(world.address, "/ssh-keys"))[0] == 503
    finally:
        world.host.metadata.remove_vm_documents("vm-thief")
        world.host.metadata.notify()
    assert world.keys() == f"{KEY}\n".encode()


def test_broken_files_hurt_no_other(world: World) -> None:
    directory = world.host.directory / "metadata"
    broken = [directory / "vms/broken.json", directory / "networks/broken.json", directory / "networks/none.json"]
    for path, text in zip(broken, ("{", "[]", '{"network_id": "n", "namespace": "nowhere"}'), strict=True):
        path.write_text(text)
    world.host.metadata.notify()
    try:
        assert world.keys() == f"{KEY}\n".encode()
    finally:
        for path in broken:
            path.unlink()


@pytest.mark.parametrize("seen_by", ["notify", "itself"])
def test_a_gateway_made_again_is_served_again(world: World, seen_by: str) -> None:
    host = world.host
    remove_namespace(network_devices(host.tag, 100).namespace)
    host.carry([world.network], [world.guest.nic, world.other.nic])
    if seen_by == "notify":
        host.metadata.notify()

    wait_for(lambda: world.guest.connects(world.address, 80), timeout_s=10)
    assert world.keys() == f"{KEY}\n".encode()


def test_a_removed_network_is_served_no_more(world: World) -> None:
    check: Callable[[], bool] = lambda: world.guest.connects(world.address, 80)  # noqa: E731
    assert check()
    world.host.metadata.remove_network(world.network.network_id)
    world.host.metadata.notify()
    assert not check()
    world.host.metadata.write_network(world.network)
    world.host.metadata.notify()
    assert check()
