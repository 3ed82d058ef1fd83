"""The network room's door for the agent: networks and NICs of one host, each call idempotent and safe to repeat.

All calls may come from several threads, for different networks at once. ``open_tap`` makes a device that is down and
attached to nothing; ``ensure_nic`` makes it a port: in the order open, rules, ensure no frame passes before its rules.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ucloud.config.sections import HostSection, NetworkSection
from ucloud.errors import NotFound
from ucloud.model import devices
from ucloud.model.wanted import WantedNetwork, WantedNic
from ucloud.network import dnsmasq, gateway, host, links, peers
from ucloud.network.plan import NetworkTarget, ObservedNetwork, Step, plan_network, plan_removal, target_of
from ucloud.network.services import ServiceFiles, parse_name_servers, render_nic
from ucloud.system.announce import announce
from ucloud.system.files import ensure_directory, write_if_changed
from ucloud.system.namespace import list_namespaces, namespace_inode, remove_namespace
from ucloud.system.netlink import Links, open_links
from ucloud.system.tap import open_tap_device

log = logging.getLogger(__name__)

# systemd-resolved keeps the real name servers in the second one.
_RESOLV_CONFS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))


@dataclass(frozen=True, slots=True)
class ObservedDevices:
    """All devices and namespaces of this cloud on this host, by name."""

    links: tuple[str, ...]
    namespaces: tuple[str, ...]


class NetworkRoom:
    """``gateway_rules`` gives the nft text that a network's gateway is born with."""

    def __init__(
        self, host_section: HostSection, settings: NetworkSection, gateway_rules: Callable[[WantedNetwork], str]
    ) -> None:
        self._settings = settings
        self._gateway_rules = gateway_rules
        self._directory = host_section.state_directory / "networks"
        self._shared = threading.Lock()
        self._ages = peers.Ages()

    @property
    def mtu(self) -> int:
        """The MTU of guests."""
        return devices.guest_mtu(self._settings.underlay_mtu)

    def ensure_network(self, wanted: WantedNetwork) -> tuple[Step, ...]:
        """Make the host carry the network. Returns the steps that were needed (none: it was complete).

        Raises Conflict (``route_conflict``), with nothing changed, if its subnets would take the host's own routes.
        """
        with open_links() as door:
            target = self._target(door, wanted)
            steps = plan_network(target, self._observe(door, target))
            if Step.MAKE_GATEWAY in steps:
                gateway.refuse_foreign_routes(door, target)
            self._ensure_shared()
            for step in steps:
                self._apply(door, target, step)
            peers.keep_peers(door, target, self._ages)
        if steps:
            log.info("network %s (VNI %d): %s", target.network_id, target.vni, ", ".join(steps))
        return steps

    def remove_network(self, wanted: WantedNetwork) -> tuple[Step, ...]:
        """Remove all of the network from the host. Only for a tombstone, and after its NICs."""
        with open_links() as door:
            target = self._target(door, wanted)
            steps = plan_removal(self._observe(door, target))
            for step in steps:
                self._apply(door, target, step)
        return steps

    def open_tap(self, nic: WantedNic) -> int:
        """A new tap's descriptor for QEMU. Raises Conflict while another process holds the device."""
        name = self.tap_name(nic.id)
        descriptor = open_tap_device(name)
        with open_links() as door:
            links.prepare_nic(door, door.get(name), mtu=self.mtu)
        return descriptor

    def ensure_nic(self, nic: WantedNic, *, name: str = "", pinned: bool = True) -> bool:
        """DHCP knows the NIC (and answers ``name`` as its host name), and its device, if there is one, is connected.

        Not ``pinned``, for a guest that is still on its way here: frames for it go on to where it runs, until
        ``pin_nic``. Returns whether there is a device.
        """
        files = self._files(nic.network_id)
        if not files.nics.is_dir():
            raise NotFound(f"failed to connect NIC {nic.id}: network {nic.network_id} is not on this host")
        write_if_changed(files.nics / nic.id, render_nic(nic, name=name), mode=0o644)
        with open_links() as door:
            bridge = devices.network_devices(self._settings.tag, nic.vni).bridge
            return links.attach_nic(door, nic, tap=self.tap_name(nic.id), bridge=bridge, pinned=pinned)

    def pin_nic(self, nic: WantedNic) -> None:
        """The guest is about to run here: frames for it are its own from now on, and other hosts are told to send them
        here. Raises NotFound if not connected.
        """
        with open_links() as door:
            links.pin_nic(door, nic, tap=self.tap_name(nic.id))
        with contextlib.suppress(NotFound):  # the guest's QEMU tells them again
            announce(devices.network_devices(self._settings.tag, nic.vni).vxlan, nic.mac)

    def unplug_nic(self, nic_id: str) -> bool:
        """The guest stands still here and may run elsewhere: frames for it leave the host. ``ensure_nic`` undoes it.

        Returns whether its device was connected.
        """
        with open_links() as door:
            return links.detach_nic(door, self.tap_name(nic_id))

    def remove_nic(self, nic_id: str) -> bool:
        """Forget a NIC. Only after its QEMU has ended. Returns whether anything was there."""
        found = list(self._directory.glob(f"*/nics.d/{nic_id}"))
        for path in found:
            path.unlink(missing_ok=True)
            dnsmasq.reload_services(ServiceFiles(path.parent.parent))
        with open_links() as door:
            return door.remove(self.tap_name(nic_id)) or bool(found)

    def underlay_address(self) -> str:
        """Where other hosts send this host's VXLAN packets to, "" if it is alone."""
        with open_links() as door:
            return links.underlay_address(door, self._settings)

    def tap_name(self, nic_id: str) -> str:
        return devices.tap_device(self._settings.tag, nic_id)

    def observe(self) -> ObservedDevices:
        prefixes = devices.device_prefixes(self._settings.tag)
        kinds = (prefixes.tap, prefixes.vxlan, prefixes.bridge, prefixes.gateway, prefixes.uplink, prefixes.underlay)
        with open_links() as door:
            names = tuple(sorted(link.name for kind in kinds for link in door.list_links(kind)))
        return ObservedDevices(names, tuple(list_namespaces(devices.namespace_prefix(self._settings.tag))))

    def remove_all(self) -> None:
        """Leave nothing of this cloud's networks on the host (``ucloud down``). Files of networks are removed too."""
        for directory in sorted(self._directory.glob("*/")):
            dnsmasq.stop_services(ServiceFiles(directory))
        observed = self.observe()
        with open_links() as door:
            for name in observed.links:
                door.remove(name)
        for namespace in observed.namespaces:
            remove_namespace(namespace)
        for directory in sorted(self._directory.glob("*/")):
            dnsmasq.remove_files(ServiceFiles(directory))
        self._restore_sysctls()

    def _restore_sysctls(self) -> None:
        """Not while another cloud of this machine has networks: the settings are its as well.

        Then the record stays, and our next ``down`` restores what was before. The other cloud cannot: it found
        forwarding switched on and wrote nothing down.
        """
        with open_links() as door:
            clouds = {devices.cloud_of_uplink(link.name) for link in door.list_links("")}
        others = sorted(clouds - {"", self._settings.tag})
        if others:
            log.info("the kernel's settings stay: they serve cloud %s, too", ", ".join(others))
            return
        host.restore_sysctls(self._record)

    @property
    def _record(self) -> Path:
        return self._directory / "sysctls.json"

    def _files(self, network_id: str) -> ServiceFiles:
        return ServiceFiles(self._directory / network_id)

    def _target(self, door: Links, wanted: WantedNetwork) -> NetworkTarget:
        return target_of(
            wanted,
            self._settings,
            rules=self._gateway_rules(wanted),
            forwarders=self._settings.forwarders or _name_servers(),
            local=links.underlay_address(door, self._settings),
        )

    def _ensure_shared(self) -> None:
        """What all networks need, by one thread at a time."""
        with self._shared, open_links() as door:
            host.ensure_forwarding(self._record)
            links.ensure_underlay(door, self._settings)

    def _observe(self, door: Links, target: NetworkTarget) -> ObservedNetwork:
        names = target.devices
        files = self._files(target.network_id)
        bridge = door.find(names.bridge)
        vxlan = door.find(names.vxlan)
        attached = bridge is not None and vxlan is not None and vxlan.master == bridge.index
        present = bridge or vxlan or door.find(names.uplink) or door.find(names.gateway)
        return ObservedNetwork(
            bridge=bridge.alias if bridge is not None and bridge.up else "",
            vxlan=vxlan.alias if vxlan is not None and vxlan.up and attached else "",
            gateway=gateway.observe_gateway(door, target),
            services=dnsmasq.observe_services(files, names.namespace),
            names=_read_text(files.names),
            told=peers.read_told(files.peers),
            forwards=peers.observe_forwards(vxlan),
            present=bool(present) or bool(namespace_inode(names.namespace)) or files.directory.is_dir(),
        )

    def _apply(self, door: Links, target: NetworkTarget, step: Step) -> None:
        files = self._files(target.network_id)
        namespace = target.devices.namespace
        effects: dict[Step, Callable[[], object]] = {
            Step.MAKE_BRIDGE: lambda: links.make_bridge(door, target),
            Step.MAKE_VXLAN: lambda: links.make_vxlan(door, self._settings, target),
            Step.UPDATE_PEERS: lambda: peers.update_peers(door, target, files.peers, self._ages),
            Step.MAKE_GATEWAY: lambda: gateway.make_gateway(door, target),
            Step.WRITE_NAMES: lambda: _write_names(files, target.names),
            Step.START_SERVICES: lambda: dnsmasq.start_services(
                files, namespace, text=target.services, digest=target.services_digest
            ),
            Step.STOP_SERVICES: lambda: dnsmasq.stop_services(files),
            Step.REMOVE_GATEWAY: lambda: gateway.remove_gateway(door, target),
            Step.REMOVE_LINKS: lambda: links.remove_links(door, target),
            Step.REMOVE_FILES: lambda: dnsmasq.remove_files(files),
        }
        effects[step]()


def _write_names(files: ServiceFiles, text: str) -> None:
    ensure_directory(files.names.parent, mode=0o755)
    write_if_changed(files.names, text, mode=0o644)
    dnsmasq.reload_services(files)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _name_servers() -> tuple[str, ...]:
    for path in _RESOLV_CONFS:
        servers = parse_name_servers(_read_text(path) or "")
        if servers:
            return servers
    return ()
