"""Which claim keys an object holds, so that its making claims exactly what its end gives back. Pure."""

from __future__ import annotations

from ucloud.model.devices import eui64_address
from ucloud.model.host import Host
from ucloud.model.image import Image
from ucloud.model.key import Key
from ucloud.model.network import Network
from ucloud.model.vm import Vm
from ucloud.store import keys

_NOUNS = {Network: "network", Image: "image", Key: "key", Host: "host"}


def claims_of(thing: Vm | Network | Image | Key | Host) -> tuple[str, ...]:
    """The claim keys of one object. VM names are not unique, so a VM claims none."""
    if isinstance(thing, Vm):
        return _of_vm(thing)
    name = keys.claim_name(_NOUNS[type(thing)], thing.meta.project, thing.meta.name)
    if isinstance(thing, Network):
        subnets = [subnet for subnet in (thing.spec.ipv6_prefix, thing.spec.ipv4_subnet) if subnet]
        return (name, keys.claim_vni(thing.spec.vni), *(keys.claim_prefix(subnet) for subnet in subnets))
    return (name,)


def _of_vm(vm: Vm) -> tuple[str, ...]:
    claimed = [keys.claim_nic(nic.id) for nic in vm.spec.nics]
    for nic in vm.spec.nics:
        # The firewall lets a guest use the address that SLAAC makes also beside a fixed one.
        slaac = eui64_address(f"{nic.ipv6}/64", nic.mac)
        claimed += [keys.claim_address(nic.network_id, one) for one in (nic.ipv6, slaac, nic.ipv4) if one]
    return tuple(dict.fromkeys(claimed))
