"""One value of each noun, with sane contents, for tests to vary by ``dataclasses.replace``."""

from __future__ import annotations

from dataclasses import replace

from ucloud.model.claim import Claim
from ucloud.model.event import Event
from ucloud.model.guard import LifeSign, RunLock
from ucloud.model.host import Host, HostSpec
from ucloud.model.image import Image, ImageFormat, ImageSpec
from ucloud.model.key import Key, KeySpec
from ucloud.model.meta import Meta
from ucloud.model.network import Network, NetworkSpec
from ucloud.model.placement import Decision, Placement, Refusal, Score
from ucloud.model.seen import GuestState, SeenHost, SeenNetwork, SeenVm
from ucloud.model.vm import Nic, Vm, VmSpec
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
LIFE_SIGN = LifeSign("host-1", "inc-1", AT)
RUN_LOCK = RunLock("vm-1", "host-1", "inc-1", 1)
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
