"""Bodies of networks."""

from __future__ import annotations

from ucloud.api.schemas.fields import NO_LABELS, Body, Ipv4Subnet, Ipv6Prefix, Labels, Name, Shown, left_out
from ucloud.api.schemas.objects import DryRunShown, ListShown, ObjectShown
from ucloud.model.meta import DEFAULT_PROJECT
from ucloud.model.network import Egress


class NetworkCreate(Body):
    name: Name
    project: Name = DEFAULT_PROJECT
    labels: Labels = NO_LABELS
    delete_protection: bool = False
    ipv6_prefix: Ipv6Prefix = left_out()
    ipv4_subnet: Ipv4Subnet = left_out()
    egress: Egress = Egress.NAT


class NetworkUpdate(Body):
    name: Name = left_out()
    labels: Labels = left_out()
    delete_protection: bool = left_out()
    egress: Egress = left_out()


class NetworkSpecShown(Shown):
    vni: int
    ipv6_prefix: str
    ipv4_subnet: str
    egress: Egress


class NetworkOnHost(Shown):
    host_id: str
    ready: bool
    reason: str


class NetworkStatusShown(Shown):
    word: str
    vms: int
    hosts: list[NetworkOnHost]


class NetworkShown(ObjectShown[NetworkSpecShown, NetworkStatusShown]):
    pass


class NetworkPlanned(ObjectShown[NetworkSpecShown, NetworkStatusShown]):
    """Without an id if it is not made yet."""

    id: str = ""


class NetworkList(ListShown[NetworkShown]):
    pass


class NetworkDryRun(DryRunShown[NetworkPlanned]):
    pass
