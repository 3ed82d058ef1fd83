"""Files to callers: changes are seen, disagreements too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.samples import WANTED_VM
from ucloud.config.sections import HostSection, NetworkSection
from ucloud.metadata.catalogue import Catalogue
from ucloud.metadata.room import MetadataRoom, metadata_files
from ucloud.model.network import Egress
from ucloud.model.wanted import WantedNetwork, WantedNic, WantedVm

NIC = WantedNic("abcdefgh", "network-a", 100, "02:00:00:00:00:01", "fd00:1::5", "10.0.0.5")


def make_vm(name: str) -> WantedVm:
    return replace(WANTED_VM, vm_id=f"vm-{name}", name=name, nics=(NIC,))


def test_callers_follow_the_files(tmp_path: Path) -> None:
    section = HostSection(state_directory=tmp_path, run_directory=tmp_path)
    room, catalogue = MetadataRoom(section, NetworkSection()), Catalogue(metadata_files(section))
    catalogue.rescan()
    assert catalogue.networks == {}

    room.write_network(WantedNetwork("network-a", "main", 100, False, "fd00:1::/64", "", Egress.NAT))
    assert room.write_vm_documents(make_vm("a"), None)
    assert not room.write_vm_documents(make_vm("a"), None)
    catalogue.rescan()

    assert catalogue.networks == {"network-a": "ucloud-0a0-64"}
    for address in ("10.0.0.5", "fd00:1::5", "fd00:1::ff:fe00:1", "fe80::ff:fe00:1"):
        assert [vm.vm_id for vm in catalogue.find("network-a", address)] == ["vm-a"], address
    assert catalogue.find("network-b", "10.0.0.5") == []

    room.write_vm_documents(make_vm("b"), None)
    catalogue.rescan()
    assert len(catalogue.find("network-a", "10.0.0.5")) == 2

    room.remove_vm_documents("vm-a")
    room.remove_vm_documents("vm-a")
    room.remove_network("network-a")
    catalogue.rescan()
    assert [vm.vm_id for vm in catalogue.find("network-a", "10.0.0.5")] == ["vm-b"]
    assert catalogue.networks == {}
