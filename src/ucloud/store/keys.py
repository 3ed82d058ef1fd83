"""The only place that spells a key, and says who may write it.

Every function returns a full key or prefix below ``ROOT``. Prefixes end with "/", so that no key of another
object can begin with one. ``WRITERS`` is the table of law 1: one key, one writer.
"""

from __future__ import annotations

from urllib.parse import quote

ROOT = "/ucloud/"

# prefix below ROOT → the process that writes it
WRITERS = {
    "spec/": "api",
    "placement/": "scheduler",
    "wanted/": "scheduler",  # its compose part
    "seen/": "agent of that host",
    "alive/": "guard of that host",
    "registered/": "guard of that host",
    "lock/": "agent of that host; a takeover; a migration",
    "fenced/": "scheduler",
    "takeover/": "scheduler",
    "migration/": "scheduler",
    "site/": "tools that change the cloud itself: which etcd members vote",
    "claim/": "api makes; the scheduler's cleaner removes",
    "budget/": "api and scheduler: sums compare it; users of an image, network or key ring it, deletes compare it",
    "event/": "any, append-only",
    "election/": "the candidates",
    "secret/": "who needs it",
}


def writer_of(key: str) -> str:
    """Who may write ``key``: the text of WRITERS, or "unknown"."""
    below = key.removeprefix(ROOT)
    return next((writer for prefix, writer in WRITERS.items() if below.startswith(prefix)), "unknown")


def _word(text: str) -> str:
    """``text`` as one path segment: names and addresses may hold "/" or spaces."""
    return quote(text, safe=":.-_~")


def specs(noun: str) -> str:
    """Prefix of all objects of a noun: "vm", "network", "image", "key", "host"."""
    return f"{ROOT}spec/{noun}/"


def spec(noun: str, object_id: str) -> str:
    return specs(noun) + _word(object_id)


def placements() -> str:
    return f"{ROOT}placement/"


def placement(vm_id: str) -> str:
    return placements() + _word(vm_id)


def wanted_all() -> str:
    return f"{ROOT}wanted/"


def wanted_of(host_id: str) -> str:
    return f"{wanted_all()}{_word(host_id)}/"


def wanted(host_id: str, noun: str, object_id: str) -> str:
    return f"{wanted_of(host_id)}{noun}/{_word(object_id)}"


def host_of_wanted(key: str) -> str:
    """The host id in a key made by ``wanted``."""
    return key.removeprefix(wanted_all()).split("/", 1)[0]


def noun_and_id(key: str) -> tuple[str, str]:
    """The noun and the object id at the end of a key made by ``wanted`` or ``seen``."""
    noun, object_id = key.split("/")[-2:]
    return noun, object_id


def is_about_vms(key: str) -> bool:
    """Whether the key holds a VM's spec, placement or wanted document."""
    return key.startswith((specs("vm"), placements())) or (key.startswith(wanted_all()) and "/vm/" in key)


def seen_all() -> str:
    return f"{ROOT}seen/"


def seen_of(host_id: str) -> str:
    return f"{seen_all()}{_word(host_id)}/"


def seen(host_id: str, noun: str, object_id: str) -> str:
    return f"{seen_of(host_id)}{noun}/{_word(object_id)}"


def alive_all() -> str:
    return f"{ROOT}alive/"


def alive(host_id: str) -> str:
    return alive_all() + _word(host_id)


def registered_all() -> str:
    return f"{ROOT}registered/"


def registered(host_id: str) -> str:
    return registered_all() + _word(host_id)


def locks() -> str:
    return f"{ROOT}lock/"


def lock(host_id: str, volume_id: str) -> str:
    return f"{locks()}{_word(host_id)}/{_word(volume_id)}"


def locks_of(host_id: str) -> str:
    return f"{locks()}{_word(host_id)}/"


def fenced_all() -> str:
    return f"{ROOT}fenced/"


def fenced(host_id: str, incarnation: str) -> str:
    return f"{fenced_all()}{_word(host_id)}/{_word(incarnation)}"


def takeovers() -> str:
    return f"{ROOT}takeover/"


def takeover(host_id: str) -> str:
    return takeovers() + _word(host_id)


def migrations() -> str:
    return f"{ROOT}migration/"


def migration(vm_id: str) -> str:
    return migrations() + _word(vm_id)


def members() -> str:
    """Which etcd members vote."""
    return f"{ROOT}site/members"


def claims(kind: str) -> str:
    return f"{ROOT}claim/{kind}/"


def claim_addresses(network_id: str) -> str:
    """Prefix of all addresses taken in a network."""
    return f"{claims('address')}{_word(network_id)}/"


def claim_address(network_id: str, address: str) -> str:
    return claim_addresses(network_id) + _word(address)


def claim_nic(nic_id: str) -> str:
    """A NIC's id, and with it its MAC."""
    return claims("nic") + _word(nic_id)


def claim_vni(vni: int) -> str:
    return f"{claims('vni')}{vni:08d}"


def claim_name(noun: str, project: str, name: str) -> str:
    return f"{claims('name')}{noun}/{_word(project)}/{_word(name)}"


def claim_prefix(prefix: str) -> str:
    """A network's CIDR, so that no two networks of the cloud get the same one."""
    return claims("prefix") + _word(prefix)


def claim_request(digest: str) -> str:
    """An idempotency key, as a digest."""
    return claims("request") + digest


def budget(owner: str) -> str:
    return f"{ROOT}budget/{_word(owner)}"


def events() -> str:
    return f"{ROOT}event/"


def event(event_id: str) -> str:
    """``event_id`` sorts by time, so events list in order."""
    return events() + event_id


def election(name: str) -> str:
    return f"{ROOT}election/{_word(name)}/"


def secret_user_data(host_id: str, vm_id: str) -> str:
    """The copy for the host that runs the VM."""
    return f"{secrets_of(host_id)}user_data/{_word(vm_id)}"


def secrets_of(host_id: str) -> str:
    return f"{ROOT}secret/host/{_word(host_id)}/"


def secret_user_data_source(vm_id: str) -> str:
    """As the user gave it; written by the api."""
    return f"{ROOT}secret/user_data/{_word(vm_id)}"


def last_segment(key: str) -> str:
    """The object id at the end of a key made here."""
    return key.rsplit("/", 1)[-1]
