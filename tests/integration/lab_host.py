"""A host in a namespace of its own, with guests in further ones: real devices, rules and services, nothing outside.

A guest is a namespace whose ``eth0`` is one end of a device pair; the other end has the name of the NIC's tap, so that
it stands in for QEMU. What a test does "on the host" or "in a guest" runs inside that namespace.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from tests.unit.samples import WANTED_VM
from ucloud.config.load import render_config
from ucloud.config.sections import Config, HostSection, NetworkSection
from ucloud.firewall.room import FirewallRoom
from ucloud.metadata.room import MetadataRoom
from ucloud.model.devices import eui64_address
from ucloud.model.meta import mac_of_nic
from ucloud.model.network import Egress
from ucloud.model.wanted import WantedName, WantedNetwork, WantedNic, WantedVm
from ucloud.network.room import NetworkRoom
from ucloud.system.identity import new_nic_id
from ucloud.system.namespace import ensure_namespace, in_namespace, remove_namespace
from ucloud.system.netlink import Veth, open_links
from ucloud.system.sysctl import ensure_sysctl

T = TypeVar("T")

OUTSIDE_IPV4 = "192.0.2.1"
OUTSIDE_IPV6 = "2001:db8::1"
HOST_IPV4 = "192.0.2.2"
HOST_IPV6 = "2001:db8::2"
UNDERLAY_ONE = "198.51.100.1"
UNDERLAY_TWO = "198.51.100.2"


def wait_for(condition: Callable[[], T], *, timeout_s: float = 15.0) -> T:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"no {condition} within {timeout_s} s"
        time.sleep(0.05)


def make_network(name: str, vni: int, *, ipv4: str = "", egress: Egress = Egress.NAT) -> WantedNetwork:
    return WantedNetwork(f"network-{name}", name, vni, False, f"fd00:7563:6c6f:{vni & 0xFFFF:x}::/64", ipv4, egress)


def make_nic(network: WantedNetwork, *, ipv4: str = "") -> WantedNic:
    nic_id = new_nic_id()
    mac = mac_of_nic(nic_id)
    return WantedNic(nic_id, network.network_id, network.vni, mac, eui64_address(network.ipv6_prefix, mac), ipv4)


def make_vm(name: str, nic: WantedNic, key: str) -> WantedVm:
    return replace(WANTED_VM, vm_id=f"vm-{name}", name=name, nics=(nic,), keys=(key,))


def name_of(name: str, nic: WantedNic) -> WantedName:
    return WantedName(name, nic.mac, nic.ipv6, nic.ipv4)


@dataclass(frozen=True, slots=True)
class Guest:
    namespace: str
    nic: WantedNic

    def do(self, work: Callable[[], T]) -> T:
        return in_namespace(self.namespace, work)

    def pings(self, address: str, *, timeout_s: float = 0.5) -> bool:
        argv = ["ping", "-n", "-c", "1", "-W", str(timeout_s), address]
        return self.do(lambda: subprocess.run(argv, capture_output=True, check=False).returncode) == 0

    def add_address(self, address: str) -> None:
        def work() -> None:
            with open_links() as links:
                links.add_address(links.get("eth0").index, address)

        self.do(work)

    def run(self, *argv: str) -> str:
        return self.do(lambda: subprocess.run(argv, capture_output=True, check=True, text=True).stdout)

    def connects(self, address: str, port: int, *, timeout_s: float = 0.5) -> bool:
        def work() -> bool:
            try:
                with socket.create_connection((address, port), timeout=timeout_s):
                    return True
            except OSError:
                return False

        return self.do(work)


class LabHost:
    def __init__(self, settings: NetworkSection | None = None) -> None:
        self.tag = secrets.token_hex(2)[:3]
        self.namespace = f"lab-{os.getpid()}-{self.tag}"
        self.directory = Path(tempfile.mkdtemp(prefix="ucloud-lab-"))
        self.directory.chmod(0o755)
        base = settings or NetworkSection()
        self.settings = replace(base, tag=self.tag)
        self.section = HostSection(state_directory=self.directory, run_directory=self.directory / "run")
        self.firewall = FirewallRoom(self.settings)
        self.network = NetworkRoom(self.section, self.settings, self.firewall.gateway_rules)
        self.metadata = MetadataRoom(self.section, self.settings)
        self._stack = contextlib.ExitStack()
        self._namespaces: list[str] = []

    def __enter__(self) -> LabHost:
        self.new_namespace(self.namespace)
        self._stack.callback(shutil.rmtree, self.directory)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.do(self.network.remove_all)
            self.do(self.firewall.remove_all)
        finally:
            self._stack.close()
            for namespace in self._namespaces:
                remove_namespace(namespace)

    def do(self, work: Callable[[], T]) -> T:
        return in_namespace(self.namespace, work)

    def new_namespace(self, name: str) -> None:
        ensure_namespace(name)
        self._namespaces.append(name)

        def loopback() -> None:
            with open_links() as links:
                links.set_up(links.get("lo").index)

        in_namespace(name, loopback)

    def carry(self, networks: list[WantedNetwork], nics: list[WantedNic]) -> None:
        """As an agent does: networks, rules, NICs."""

        def work() -> None:
            for network in networks:
                self.network.ensure_network(network)
                self.metadata.write_network(network)
            self.firewall.ensure(nics, networks)
            for nic in nics:
                self.network.ensure_nic(nic)

        self.do(work)
        for device in ["ug", "ut"]:
            wait_for(lambda device=device: self._ports_forward(device))

    def _ports_forward(self, prefix: str) -> bool:
        """The kernel looks at the carrier of device pairs up to a second late."""
        lines = self.do(lambda: subprocess.run(["bridge", "link"], capture_output=True, text=True, check=True)).stdout
        return all("state forwarding" in line for line in lines.splitlines() if f": {prefix}" in line)

    def plug_guest(self, nic: WantedNic) -> Guest:
        """Make the guest and its device; ``carry`` connects it."""
        guest = Guest(f"{self.namespace}-{nic.id}", nic)
        self.new_namespace(guest.namespace)
        guest.do(lambda: ensure_sysctl("net/ipv6/conf/default/addr_gen_mode", "0"))

        def plug() -> None:
            with open_links() as links:
                links.add_veth(Veth(self.network.tap_name(nic.id), "eth0", guest.namespace, 1430, nic.mac))

        def switch_on() -> None:
            with open_links() as links:
                links.set_up(links.get("eth0").index)

        self.do(plug)
        guest.do(switch_on)
        return guest

    def add_outside(self) -> str:
        """A neighbour of the host that knows nothing of guests. Returns its namespace."""
        outside = f"{self.namespace}-out"
        self.new_namespace(outside)

        def connect() -> None:
            with open_links() as links:
                links.add_veth(Veth("world", "host", outside, 1500))
                link = links.get("world")
                links.set_up(link.index)
                links.add_address(link.index, f"{HOST_IPV4}/24")
                links.add_address(link.index, f"{HOST_IPV6}/64")

        def outside_end() -> None:
            with open_links() as links:
                link = links.get("host")
                links.set_up(link.index)
                links.add_address(link.index, f"{OUTSIDE_IPV4}/24")
                links.add_address(link.index, f"{OUTSIDE_IPV6}/64")

        self.do(connect)
        in_namespace(outside, outside_end)
        return outside

    def connect_underlay(self, other: LabHost) -> None:
        """A wire between two hosts, for their VXLAN devices; both have it as ``wire``."""

        def pair() -> None:
            with open_links() as links:
                links.add_veth(Veth("wire", "wire", other.namespace, 1500))

        def switch_on(address: str) -> None:
            with open_links() as links:
                link = links.get("wire")
                links.set_up(link.index)
                links.add_address(link.index, address)

        self.do(pair)
        self.do(lambda: switch_on(f"{UNDERLAY_ONE}/24"))
        other.do(lambda: switch_on(f"{UNDERLAY_TWO}/24"))

    def start_metadata(self) -> subprocess.Popen[bytes]:
        """The metadata process, ended with the lab."""
        config = self.directory / "config.toml"
        config.write_text(render_config(Config(host=self.section, network=self.settings)))
        code = (
            "import sys; from pathlib import Path; from ucloud.config.load import load_config; "
            "from ucloud.metadata.process import main; sys.exit(main(load_config(Path(sys.argv[1]))))"
        )
        process = self.do(lambda: subprocess.Popen([sys.executable, "-c", code, str(config)]))
        self._stack.callback(_end, process)
        wait_for((self.directory / "run/metadata.sock").exists)
        return process


class Underlay:
    """A switch in a namespace of its own, without any IPv4: hosts have their port as ``wire``."""

    PREFIX = "2001:db8:5a::"

    def __init__(self) -> None:
        self.namespace = f"lab-{os.getpid()}-{secrets.token_hex(2)}-switch"

    def __enter__(self) -> Underlay:
        ensure_namespace(self.namespace)

        def switch() -> None:
            with open_links() as links:
                links.add_bridge("switch")
                links.set_up(links.get("switch").index)

        in_namespace(self.namespace, switch)
        return self

    def __exit__(self, *_: object) -> None:
        remove_namespace(self.namespace)

    def connect(self, host: LabHost, number: int) -> str:
        """Returns the host's address."""
        port = f"port{number}"

        def pair() -> None:
            with open_links() as links:
                links.add_veth(Veth(port, "wire", host.namespace, 1500))
                links.set_up(links.get(port).index, master=links.get("switch").index)

        def wire() -> None:
            with open_links() as links:
                link = links.get("wire")
                links.set_up(link.index)
                links.add_address(link.index, f"{self.PREFIX}{number:x}/64")

        in_namespace(self.namespace, pair)
        host.do(wire)
        return f"{self.PREFIX}{number:x}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def greeter(namespace: str, family: int, port: int) -> Iterator[None]:
    """A TCP server inside ``namespace`` that tells each caller its address."""

    def listen() -> socket.socket:
        address = "::" if family == socket.AF_INET6 else "0.0.0.0"
        return socket.create_server((address, port), family=family)

    server = in_namespace(namespace, listen)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, address = server.accept()
                with peer:
                    peer.sendall(address[0].encode())

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()


def greeted_as(address: str, port: int) -> str:
    """What a greeter says, for use inside a guest."""
    with socket.create_connection((address, port), timeout=3) as peer:
        return peer.recv(100).decode()
