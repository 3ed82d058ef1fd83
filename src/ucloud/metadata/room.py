"""The metadata room's door for the agent: it writes the files that the metadata process answers from.

Below ``<state>/metadata``: ``networks/<network>.json`` says where to listen, ``vms/<vm>.json`` has a VM's documents and
the addresses it may ask from. ``notify`` makes the process look at once; without it, it looks every few seconds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ucloud.config.sections import HostSection, NetworkSection
from ucloud.errors import Unavailable
from ucloud.metadata.documents import encode_documents, render_documents
from ucloud.model import devices
from ucloud.model.wanted import WantedNetwork, WantedNic, WantedVm
from ucloud.system.files import ensure_directory, write_if_changed
from ucloud.system.unix_socket import connect_unix

NOTIFY_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class MetadataFiles:
    directory: Path
    control: Path

    @property
    def networks(self) -> Path:
        return self.directory / "networks"

    @property
    def vms(self) -> Path:
        return self.directory / "vms"


def metadata_files(host: HostSection) -> MetadataFiles:
    return MetadataFiles(host.state_directory / "metadata", host.run_directory / "metadata.sock")


class MetadataRoom:
    def __init__(self, host: HostSection, settings: NetworkSection) -> None:
        self._files = metadata_files(host)
        self._tag = settings.tag

    def write_network(self, network: WantedNetwork) -> bool:
        """Have the process listen in the network's gateway. Returns whether anything changed."""
        namespace = devices.network_devices(self._tag, network.vni).namespace
        ensure_directory(self._files.networks)
        path = self._files.networks / f"{network.network_id}.json"
        return write_if_changed(path, json.dumps({"network_id": network.network_id, "namespace": namespace}))

    def remove_network(self, network_id: str) -> None:
        (self._files.networks / f"{network_id}.json").unlink(missing_ok=True)

    def write_vm_documents(self, vm: WantedVm, user_data: bytes | None) -> bool:
        """Make these the VM's documents, seen by its next request. Returns whether anything changed."""
        ensure_directory(self._files.vms)
        value = {
            "vm_id": vm.vm_id,
            "callers": [[nic.network_id, address] for nic in vm.nics for address in _addresses(nic)],
            "documents": encode_documents(render_documents(vm, user_data)),
        }
        return write_if_changed(self._files.vms / f"{vm.vm_id}.json", json.dumps(value))

    def remove_vm_documents(self, vm_id: str) -> None:
        (self._files.vms / f"{vm_id}.json").unlink(missing_ok=True)

    def notify(self) -> None:
        """Return when the process has seen all files. Raises Unavailable if it does not answer."""
        try:
            with connect_unix(self._files.control, NOTIFY_TIMEOUT_S) as door:
                if door.recv(16):
                    return
        except OSError as error:
            raise Unavailable(
                f"failed to notify the metadata process: {error.strerror or error}", hint="see 'ucloud status'"
            ) from error
        raise Unavailable("failed to notify the metadata process: it hung up")


def _addresses(nic: WantedNic) -> list[str]:
    """The addresses that the firewall lets this NIC use."""
    made = devices.eui64_address(f"{nic.ipv6}/64", nic.mac)
    return list(dict.fromkeys(one for one in (nic.ipv4, nic.ipv6, made, devices.link_local_of(nic.mac)) if one))
