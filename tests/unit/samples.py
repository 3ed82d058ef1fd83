"""One value of each noun, with sane contents, for tests to vary by ``dataclasses.replace``."""

from __future__ import annotations

from dataclasses import replace

from ucloud.model.claim import Claim
from ucloud.model.event import Event
from ucloud.model.guard import Fenced, LifeSign, Members, RunLock, Takeover, TakeoverPhase, Voter
from ucloud.model.host import Host, HostSpec
from ucloud.model.image import Image, ImageFormat, ImageSpec
from ucloud.model.key import Key, KeySpec
from ucloud.model.machine import Machine
from ucloud.model.meta import Meta
from ucloud.model.migration import Migration, MigrationRequest, Phase
from ucloud.model.network import Network, NetworkSpec
from ucloud.model.placement import Decision, Placement, Refusal, Score
from ucloud.model.seen import Fence, GuestState, SeenHost, SeenNetwork, SeenPool, SeenVm
from ucloud.model.vm import Failover, Nic, Vm, VmSpec
from ucloud.model.wanted import WantedBlob, WantedImage, WantedName, WantedNetwork, WantedNic, WantedVm

AT = "2026-01-31T12:00:00.000Z"
DIGEST = "ab" * 32


def meta(object_id: str, name: str, *, created_at: str = AT) -> Meta:
    return Meta(id=object_id, name=name, project="default", created_at=created_at)


NIC = Nic("mfrggzdf", "network-1", "02:61:62:63:64:65", "fd00::61ff:fe63:6465", "10.0.0.5")
VM = Vm(
    meta("vm-1", "web1"),
    VmSpec("image-1", cpus=2, memory_mib=512, disk_gib=10, nics=(NIC,), key_ids=("key-1",), user_data_bytes=12),
)
NETWORK = Network(meta("network-1", "main"), NetworkSpec(300, "fd00::/64", "10.0.0.0/24"))
IMAGE = Image(meta("image-1", "tiny"), ImageSpec(DIGEST, ImageFormat.QCOW2, 20_000_000, 67_108_864, "host-1", "upload"))
KEY = Key(meta("key-1", "mine"), KeySpec("ssh-ed25519 AAAAC3Nz mine", "SHA256:abc"))
HOST = Host(meta("host-1", "h1"), HostSpec())
DECISION = Decision(
    revision=7,
    considered=2,
    refused={"memory": 1},
    examples=(Refusal("host-2", "memory", "has 0 of 0 MiB memory free, 512 needed"),),
    scores=(Score("host-1", 0.75, {"spread": 0.7, "image": 1.0}),),
    reason="host-1 scored best of 1 possible hosts",
)
PLACEMENT = Placement("vm-1", "host-1", 1, 1, 2, 512, 10, AT, DECISION)
WANTED_NIC = WantedNic(NIC.id, "network-1", 300, NIC.mac, NIC.ipv6, NIC.ipv4)
WANTED_VM = WantedVm(
    vm_id="vm-1",
    name="web1",
    project="default",
    generation=1,
    spec_generation=1,
    gone=False,
    power=VM.spec.power,
    boots=1,
    restart=VM.spec.restart,
    failover=VM.spec.failover,
    stop_timeout_s=60,
    cpus=2,
    memory_mib=512,
    disk_gib=10,
    image=WantedImage(DIGEST, ImageFormat.QCOW2, ("https://127.0.0.1:8702",)),
    nics=(WANTED_NIC,),
    keys=(KEY.spec.public_key,),
    has_user_data=True,
)
WANTED_NETWORK = WantedNetwork(
    "network-1",
    "main",
    300,
    False,
    "fd00::/64",
    "10.0.0.0/24",
    NETWORK.spec.egress,
    (WantedName("web1", NIC.mac, NIC.ipv6, NIC.ipv4),),
)
WANTED_BLOB = WantedBlob(DIGEST, True)
SEEN_VM = SeenVm("vm-1", 1, 1, GuestState.RUNNING, "", AT, boots=1, cpus=2, memory_mib=512, disk_gib=10)
SEEN_NETWORK = SeenNetwork("network-1", True, False, "", AT, 1430)
SEEN_HOST = SeenHost(
    host_id="host-1",
    at=AT,
    version="0.1.0",
    system="Linux 6.1",
    architecture="x86_64",
    accelerator="tcg",
    qemu_version="7.2",
    cpus=4,
    memory_mib=8192,
    disk_mib=102_400,
    disk_free_mib=51_200,
    door="https://127.0.0.1:8702",
    images=(DIGEST,),
)
MACHINE = Machine("vm-1", "0199-aa", 600_001, "pc-q35-7.2", ("usb=off",), "qemu64", {"root": 3, NIC.id: 4})
POOL = SeenPool("pool-1", Fence.LOCK, ("host-1", "host-2", "host-3"))
LIFE_SIGN = LifeSign("host-1", "inc-1", AT)
RUN_LOCK = RunLock("vm-1", "host-1", "inc-1", 1)
FENCED = Fenced("host-1", "inc-1", AT, "its life sign was gone")
TAKEOVER = Takeover("host-1", "inc-1", TakeoverPhase.WAITING, "its life sign is gone", AT, AT, AT)
MEMBERS = Members("14841639068965178418", 3, (Voter("m1", "10276657743932975437", "https://[fd00::1]:2382"),))
MIGRATION_REQUEST = MigrationRequest("vm-1", "migration-1", "host-2", AT)
MIGRATION = Migration(
    vm_id="vm-1",
    id="migration-1",
    source="host-1",
    target="host-2",
    generation=1,
    phase=Phase.SENDING,
    reason="host-2 listens",
    started_at=AT,
    since=AT,
    until=AT,
    cpus=2,
    memory_mib=512,
    disk_gib=10,
)
EVENT = Event("0199", AT, "vm_created", "vm", "vm-1", "default", "api", "created", "req-1")
CLAIM = Claim("vm-1", AT, "cd" * 32)

ALL = (
    VM,
    NETWORK,
    IMAGE,
    KEY,
    HOST,
    PLACEMENT,
    WANTED_VM,
    WANTED_NETWORK,
    WANTED_BLOB,
    SEEN_VM,
    SEEN_NETWORK,
    SEEN_HOST,
    LIFE_SIGN,
    RUN_LOCK,
    FENCED,
    TAKEOVER,
    MEMBERS,
    MIGRATION_REQUEST,
    MIGRATION,
    EVENT,
    CLAIM,
)


def vm(number: int, **spec: object) -> Vm:
    """A VM with a number of its own, created in the order of the numbers; no NIC."""
    found = replace(VM, meta=meta(f"vm-{number}", f"web{number}", created_at=f"2026-01-31T12:00:{number:02d}.000Z"))
    return replace(found, spec=replace(found.spec, **{"nics": (), **spec}))


def host(number: int) -> Host:
    return replace(HOST, meta=meta(f"host-{number}", f"h{number}"))


def report(number: int, **fields: object) -> SeenHost:
    return replace(SEEN_HOST, **{"host_id": f"host-{number}", "images": (), **fields})


def sign(number: int, *, incarnation: str = "inc-1", fence_s: float = 3.0, kill_s: float = 0.25) -> LifeSign:
    return LifeSign(f"host-{number}", incarnation, AT, fence_s, kill_s)


def lock(number: int, host_number: int = 1, **fields: object) -> RunLock:
    """The lock of VM ``number`` on a host, of a process that may be started elsewhere."""
    plain = RunLock(f"vm-{number}", f"host-{host_number}", "inc-1", 1, Failover.RESTART, "pool-1")
    return replace(plain, **fields)
