"""Bodies of VMs."""

from __future__ import annotations

import base64
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from ucloud.api.schemas.fields import (
    NO_LABELS,
    USER_DATA_BYTES,
    Base64,
    Body,
    Cpus,
    DiskGib,
    HostName,
    Ipv4,
    Ipv6,
    Labels,
    MemoryMib,
    Name,
    Priority,
    Shown,
    TimeoutS,
    left_out,
)
from ucloud.api.schemas.migration import MigrationPreview
from ucloud.api.schemas.objects import DryRunShown, ListShown, ObjectShown
from ucloud.api.schemas.placement import DecisionShown
from ucloud.model.meta import DEFAULT_PROJECT
from ucloud.model.vm import Failover, Power, Restart

MAIN_NETWORK = "main"


class VmNetwork(Body):
    """A network by id or name; without an address the VM gets a free one."""

    network: Name
    ipv4: Ipv4 = left_out()
    ipv6: Ipv6 = left_out()


class VmCreate(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "not": {"required": ["user_data", "user_data_base64"]},
            "examples": [{"name": "web1", "image": "tiny", "cpus": 1, "memory_mib": 256, "disk_gib": 1}],
        }
    )

    name: HostName
    project: Name = DEFAULT_PROJECT
    labels: Labels = NO_LABELS
    delete_protection: bool = False
    image: Name
    cpus: Cpus = 1
    memory_mib: MemoryMib = 512
    disk_gib: DiskGib | None = None
    networks: Annotated[list[VmNetwork], Field(min_length=1, max_length=8)] = Field(
        default=[VmNetwork(network=MAIN_NETWORK)]
    )
    keys: Annotated[list[Name], Field(max_length=64)] = Field(default=[])
    user_data: Annotated[str, StringConstraints(max_length=USER_DATA_BYTES)] = left_out()
    user_data_base64: Base64 = left_out()
    power: Power = Power.RUNNING
    restart: Restart = Restart.ON_FAILURE
    failover: Failover = Failover.RESTART
    stop_timeout_s: TimeoutS = 60
    priority: Priority = 0

    @model_validator(mode="after")
    def _one_user_data(self) -> VmCreate:
        if {"user_data", "user_data_base64"} <= self.model_fields_set:
            raise PydanticCustomError("invalid_input", "user_data and user_data_base64 exclude each other")
        if len(self.user_data_bytes()) > USER_DATA_BYTES:
            raise PydanticCustomError("invalid_input", "user data is larger than 64 KiB")
        return self

    def user_data_bytes(self) -> bytes:
        if self.user_data_base64 is not None:
            return base64.b64decode(self.user_data_base64)
        return (self.user_data or "").encode()


class VmUpdate(Body):
    name: HostName = left_out()
    labels: Labels = left_out()
    delete_protection: bool = left_out()
    cpus: Cpus = left_out()
    memory_mib: MemoryMib = left_out()
    disk_gib: DiskGib = left_out()
    keys: Annotated[list[Name], Field(max_length=64)] = left_out()
    restart: Restart = left_out()
    failover: Failover = left_out()
    stop_timeout_s: TimeoutS = left_out()
    priority: Priority = left_out()


class VmStart(Body):
    """Nothing can be said yet about how to start."""


class VmStop(Body):
    """``timeout_s`` becomes the VM's ``stop_timeout_s``: how long a guest may take to power off before it is killed."""

    timeout_s: TimeoutS = left_out()


class NicShown(Shown):
    id: str
    network_id: str
    mac: str
    ipv6: str
    ipv4: str


class VmSpecShown(Shown):
    image_id: str
    cpus: int
    memory_mib: int
    disk_gib: int
    nics: list[NicShown]
    key_ids: list[str]
    user_data_bytes: int
    power: Power
    boots: int
    restart: Restart
    failover: Failover
    stop_timeout_s: int
    priority: int


class VmStatusShown(Shown):
    word: str
    reason: str
    pending: list[str]
    host_id: str
    boots: int
    restarts: int
    started_at: str
    accelerator: str
    machine_type: str
    cpu_model: str
    qemu_version: str
    addresses: list[str]


class VmShown(ObjectShown[VmSpecShown, VmStatusShown]):
    pass


class VmPlanned(ObjectShown[VmSpecShown, VmStatusShown]):
    """Without an id if it is not made yet."""

    id: str = ""


class VmList(ListShown[VmShown]):
    pass


class VmPlacementPreview(Shown):
    host_id: str
    decision: DecisionShown


class VmDryRun(DryRunShown[VmPlanned]):
    """``placement`` (of creates) and ``migration`` (of migrations) are what the scheduler would decide now."""

    placement: VmPlacementPreview | None = None
    migration: MigrationPreview | None = None


class ConsoleShown(Shown):
    url: str
