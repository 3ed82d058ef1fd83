"""Where the VMs of a lost host would go, decided while it is waited for: for people, who then know what to expect.

Pure, and nothing is kept of it: deciding 100 VMs among 100 hosts takes less than 0.1 s, so the commit decides anew, on
what is then true.
"""

from __future__ import annotations

from dataclasses import replace

from ucloud.config import SchedulerSection
from ucloud.model.guard import Fenced, Takeover, TakeoverPhase
from ucloud.model.vm import Failover
from ucloud.scheduler.passes import plan_pass
from ucloud.scheduler.takeover import LostHost
from ucloud.store import keys
from ucloud.store.view import Entry, View


def as_if_taken_over(view: View, host: LostHost, *, at: str) -> View:
    """The view after this host's takeover."""
    done = Takeover(host.host_id, host.incarnation, TakeoverPhase.DONE, "", at, at)
    mark = Fenced(host.host_id, host.incarnation, at)
    place = host.host_id, host.incarnation
    return replace(
        view,
        takeovers={**view.takeovers, host.host_id: Entry(keys.takeover(host.host_id), done, 0)},
        fenced={**view.fenced, place: Entry(keys.fenced(*place), mark, 0)},
        locks={
            key: lock
            for key, lock in view.locks.items()
            if key[0] != host.host_id or lock.value.failover is not Failover.RESTART
        },
    )


def preview(view: View, host: LostHost, settings: SchedulerSection, *, at: str) -> str:
    """How many VMs will be started elsewhere, and how many fit nowhere; "" if none is concerned."""
    planned = plan_pass(as_if_taken_over(view, host, at=at), settings, at=at)
    moved = [plan for plan in planned if plan.previous is not None and plan.previous.value.host_id == host.host_id]
    nowhere = sum(not plan.placement.host_id for plan in moved)
    if not moved:
        return ""
    fits = f"; {nowhere} fit nowhere" if nowhere else ""
    return f"{len(moved) - nowhere} of its VMs will go elsewhere{fits}"
