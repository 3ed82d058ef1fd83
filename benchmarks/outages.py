"""Whole outages in a lab: what must not touch a VM, and how long until everything is well again.

One line for each: every host loses etcd for 2 s; all members stop for 60 s; they come back one by one; agents are
killed; etcd is out of space while a host loses its power. A VM counts as killed if its process is not the same one.
Writers work all the while. What the checker finds at the end is in the last line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from cloud_load import CLOCK, GuardPoll, HistoryTail, Writers, all_well, wait_for
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.lab.driver import Lab
from ucloud.lab.nodes import NodeKind
from ucloud.local.supervisor import STABLE_AFTER_S
from ucloud.model.seen import SeenVm
from ucloud.store import keys
from ucloud.store.codec import decode_as

BLIP_S = 2.0
STOPPED_S = 60.0
AGENT_KILLS = 6
NOSPACE_S = 15.0
SETTLE_TIMEOUT_S = 120.0
Result = dict[str, Any]
Guests = set[tuple[str, str, int]]


class Outages:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.writers = Writers(lab)
        self.guards = GuardPoll(lab)

    def blip_all(self) -> Result:
        self.lab.faults.blip_all(for_s=BLIP_S)
        time.sleep(BLIP_S)
        return {}

    def all_stopped(self) -> Result:
        """While it lasts the guards live on what the keepers say."""
        faults = self.lab.faults.etcd.stop([])
        time.sleep(STOPPED_S)
        for fault in faults:
            self.lab.faults.undo(fault.id)
        return {"stopped_s": STOPPED_S}

    def one_by_one(self, apart_s: float) -> Result:
        self.lab.faults.etcd.restart_slowly(apart_s=apart_s, say=lambda text: print(text, file=sys.stderr))
        return {"apart_s": apart_s}

    def agents_killed(self) -> Result:
        """From the kill until the new agent has reported a wish that came after it: then it has adopted the VM."""
        seconds = []
        vms = {vm["status"]["host_id"]: vm["id"] for vm in self.lab.vms()}
        for number in range(AGENT_KILLS):
            host, vm_id = sorted(vms.items())[number % len(vms)]
            self.lab.faults.kill(host, "agent")
            at_s = CLOCK.monotonic_s()
            seconds.append(round(self._wait_adopted(host, vm_id, str(number)) - at_s, 2))
            time.sleep(STABLE_AFTER_S)  # one that dies young again is started again later
        return {"adopted_s": seconds, "adopted_max_s": max(seconds)}

    def _wait_adopted(self, host: str, vm_id: str, mark: str) -> float:
        """When the report on the VM followed a change that is made now."""
        changes = {"labels": {"mark": mark}}
        generation = self.lab.ask(lambda client: client.update("vm", vm_id, changes))["generation"]
        key = keys.seen(host, "vm", vm_id)

        def is_fresh() -> bool:
            item = self.lab.with_store(lambda store: store.get(key))
            return item is not None and decode_as(SeenVm, item.value).spec_generation >= generation

        wait_for(is_fresh, f"the agent of {host} reports", timeout_s=30)
        return CLOCK.monotonic_s()

    def nospace(self) -> Result:
        """A host dies while nothing can be written: its VMs wait for room, then they run elsewhere."""
        host = "h2"
        lost = {vm["id"] for vm in self.lab.vms() if vm["status"]["host_id"] == host}
        fault = self.lab.faults.etcd.nospace()
        self.lab.faults.power_off(host)
        time.sleep(NOSPACE_S)
        moved_early = lost & {vm["id"] for vm in self.lab.vms() if vm["status"]["host_id"] != host}
        self.lab.faults.undo(fault.id)
        restart_s = wait_for(
            lambda: lost <= {vm["id"] for vm in self.lab.vms() if self._runs_elsewhere(vm, host)},
            "the VMs run elsewhere",
            timeout_s=SETTLE_TIMEOUT_S,
        )
        self.lab.faults.power_on(host)
        return {"lost_vms": len(lost), "moved_without_room": len(moved_early), "restart_s": round(restart_s, 2)}

    @staticmethod
    def _runs_elsewhere(vm: dict[str, Any], host: str) -> bool:
        return bool(vm["status"]["word"] == "running" and vm["status"]["host_id"] != host)

    def run(self, name: str, work: Callable[[], Result], *, lost: str) -> Result:
        """Do it, wait until everything is well, and compare the guests of all hosts but the ``lost`` one."""
        before = self._guests(lost)
        self.guards.forget()
        found = work()
        ended_s = CLOCK.monotonic_s()
        wait_for(lambda: self.writers.all_acked_after(ended_s), "writes are answered", timeout_s=SETTLE_TIMEOUT_S)
        writes_back_s = min(self.writers.backs(ended_s))
        wait_for(self._is_settled, "all is well again", timeout_s=SETTLE_TIMEOUT_S)
        killed = before - self._guests(lost)
        result = {
            "outage": name,
            **found,
            "vms": len(before),
            "vms_killed": len(killed),
            "oldest_evidence_s": max(self.guards.oldest().values()),
            "writes_back_s": round(writes_back_s, 2),
            "settled_s": round(CLOCK.monotonic_s() - ended_s, 2),
            "load": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(result), flush=True)
        return result

    def _is_settled(self) -> bool:
        hosts = self.lab.hosts()
        ready = all(host["status"]["word"] == "ready" for host in hosts.values())
        running = all(vm["status"]["word"] == "running" for vm in self.lab.vms())
        return ready and running and all_well(self.lab) and self.guards.newest_age_s() < 1.0

    def _guests(self, lost: str) -> Guests:
        found: Guests = set()
        for node in self.lab.nodes(NodeKind.HOST):
            if node.name != lost:
                client = GuardClient(self.lab.layout.node(node.name).run / "guard.sock")
                found |= {(node.name, one.vm_id, one.pid) for one in client.list() if one.running}
        return found


def run_outages(lab: Lab, *, apart_s: float) -> Result:
    outages = Outages(lab)
    outages.guards.start()
    outages.writers.start()
    lines = [
        outages.run("blip_all", outages.blip_all, lost=""),
        outages.run("agents_killed", outages.agents_killed, lost=""),
        outages.run("all_stopped", outages.all_stopped, lost=""),
        outages.run("one_by_one", lambda: outages.one_by_one(apart_s), lost=""),
        outages.run("nospace", outages.nospace, lost="h2"),
    ]
    outages.guards.end()
    lost = outages.writers.end()
    violations = lab.check()
    for violation in violations:
        print(violation, file=sys.stderr)
    return {
        "vms_killed": sum(line["vms_killed"] for line in lines),
        "settled_max_s": max(line["settled_s"] for line in lines),
        "agent_adopted_max_s": lines[1]["adopted_max_s"],
        "violations": len(violations),
        "fences": sum(event["kind"] == "fence" for event in HistoryTail(lab).read()),
        "writes": outages.writers.count,
        "lost_writes": len(lost),
    }
