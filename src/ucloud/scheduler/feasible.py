"""The rules that a host must pass to take a VM. Each is a small pure function that returns why not, or None.

Each is given what is asked for, the host, and the pool that the VM's disk is in ("": it has none yet).

To add one: write the function, add it to RULES under a stable word, add a line to its table test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ucloud.model.placement import Refusal
from ucloud.scheduler.snapshot import Candidate, Resources

Rule = Callable[[Resources, Candidate, str], str | None]


def _alive(_: Resources, host: Candidate, __: str) -> str | None:
    return None if host.alive else "gives no life sign"


def _reported(_: Resources, host: Candidate, __: str) -> str | None:
    if not host.reported:
        return "its agent has not reported what the host has"
    return "its agent has reported nothing for a while" if host.silent else None


def _schedulable(_: Resources, host: Candidate, __: str) -> str | None:
    if host.draining:
        return "is being drained"
    return None if host.schedulable else "is set unschedulable"


def _pool(_: Resources, host: Candidate, pool_id: str) -> str | None:
    """A disk that is there already needs its own pool, and no room in it."""
    if pool_id:
        return None if host.pool_id == pool_id else f"does not have the pool {pool_id}, where its disk is"
    return "its pool is nearly full" if host.pool_full else None


def _proof(_: Resources, host: Candidate, __: str) -> str | None:
    """A VM that started there now could never be started elsewhere."""
    return f"has not proved yet that pool {host.pool_id} keeps a second writer out" if host.unproved else None


def _cpus(request: Resources, host: Candidate, _: str) -> str | None:
    if request.cpus <= host.free.cpus:
        return None
    return f"has {host.free.cpus:g} of {host.capacity.cpus:g} cpus free, {request.cpus:g} needed"


def _memory(request: Resources, host: Candidate, _: str) -> str | None:
    if request.memory_mib <= host.free.memory_mib:
        return None
    free, all_of_it = host.free.memory_mib, host.capacity.memory_mib
    return f"has {free} of {all_of_it} MiB memory free, {request.memory_mib} needed"


def _disk(request: Resources, host: Candidate, _: str) -> str | None:
    if request.disk_gib <= max(host.free.disk_gib, 0):
        return None
    return f"has {host.free.disk_gib} of {host.capacity.disk_gib} GiB disk free, {request.disk_gib} needed"


# In the order in which a reader wants to hear them: a dead host is not "short of memory".
RULES: Mapping[str, Rule] = {
    "alive": _alive,
    "reported": _reported,
    "schedulable": _schedulable,
    "pool": _pool,
    "proof": _proof,
    "cpus": _cpus,
    "memory": _memory,
    "disk": _disk,
}


def refusal_of(request: Resources, host: Candidate, *, pool_id: str = "") -> Refusal | None:
    """The first rule that refuses, or None if the host can take the VM. ``pool_id`` is where its disk is, if it has
    one; ``request`` then has only what the disk is to grow by.
    """
    for name, rule in RULES.items():
        reason = rule(request, host, pool_id)
        if reason is not None:
            return Refusal(host.host_id, name, reason)
    return None
