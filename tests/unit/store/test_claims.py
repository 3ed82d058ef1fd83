"""What an object claims: everything that nobody else may have while it exists, each once."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.samples import NIC, VM
from ucloud.model.devices import eui64_address
from ucloud.model.vm import Nic, Vm
from ucloud.store import keys
from ucloud.store.claims import claims_of


def vm_with(nic: Nic) -> Vm:
    return replace(VM, spec=replace(VM.spec, nics=(nic,)))


def test_a_nic_claims_its_slaac_address_beside_a_fixed_one() -> None:
    slaac = eui64_address("fd00::/64", NIC.mac)
    assert set(claims_of(vm_with(replace(NIC, ipv6="fd00::77")))) == {
        keys.claim_nic(NIC.id),
        *(keys.claim_address(NIC.network_id, address) for address in ("fd00::77", slaac, "10.0.0.5")),
    }


def test_nothing_is_claimed_twice() -> None:
    """Two equal keys in one transaction are refused by the store."""
    nic = replace(NIC, ipv6=eui64_address("fd00::/64", NIC.mac), ipv4="")
    claimed = claims_of(vm_with(nic))
    assert claimed == (keys.claim_nic(nic.id), keys.claim_address(nic.network_id, nic.ipv6))
