"""What can be done to a simulated cloud, as one line of text each: what scenario files and random schedules say.

To add one: write a function named ``do_<verb>``; its arguments are the words after the verb.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.scenario.simulation.cloud import Cloud
from tests.scenario.simulation.network import Cut
from tests.scenario.simulation.watcher import value_of
from tests.scenario.simulation.writes import ApiWrite
from ucloud.model.guard import Members, Voter
from ucloud.model.host import Drain, Host
from ucloud.model.migration import MigrationRequest
from ucloud.model.vm import Failover, Power, Vm
from ucloud.store import keys
from ucloud.system.clock import format_time

QUIET = ("check", "backup")


class Faults:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._requests = 0
        self._backup: dict[str, Any] = {}

    def do(self, line: str) -> None:
        verb, *words = line.split()
        if verb not in QUIET:
            self._cloud.say(f"--- {line}")
        getattr(self, "do_" + verb.replace("-", "_"))(*words)

    # Power and processes of hosts

    def do_power_off(self, host: str) -> None:
        self._cloud.hosts[host].power_off()
        for name, scheduler in self._cloud.schedulers.items():
            if name == host:
                scheduler.machine.dead = True

    def do_power_on(self, host: str) -> None:
        self._cloud.hosts[host].power_on()
        if host in self._cloud.schedulers:
            self._cloud.start_scheduler(host)

    def do_freeze(self, host: str) -> None:
        self._cloud.hosts[host].freeze()

    def do_thaw(self, host: str) -> None:
        self._cloud.hosts[host].thaw()

    def do_freeze_guard(self, host: str) -> None:
        guard = self._cloud.hosts[host].guard
        if guard is not None:
            self._cloud.engine.freeze(guard.place)
            self._cloud.tell("guard_frozen", host=host)

    def do_thaw_guard(self, host: str) -> None:
        guard = self._cloud.hosts[host].guard
        if guard is not None:
            self._cloud.engine.thaw(guard.place)
            self._cloud.tell("guard_thawed", host=host)

    def do_kill_guard(self, host: str) -> None:
        self._cloud.hosts[host].kill_guard()

    def do_kill_agent(self, host: str) -> None:
        self._cloud.hosts[host].kill_agent()

    def do_freeze_agent(self, host: str) -> None:
        agent = self._cloud.hosts[host].agent
        if agent is not None:
            self._cloud.engine.freeze(agent.place)

    def do_thaw_agent(self, host: str) -> None:
        agent = self._cloud.hosts[host].agent
        if agent is not None:
            self._cloud.engine.thaw(agent.place)

    def do_stuck(self, host: str, vm: str, duration_s: str) -> None:
        """Its QEMU is in D state: a kill takes effect only then."""
        self._cloud.hosts[host].stuck_until_s[vm] = self._cloud.engine.now_s + float(duration_s)

    def do_crash(self, host: str, vm: str) -> None:
        """Its QEMU ends by itself."""
        process = self._cloud.hosts[host].processes.get(vm)
        if process is not None:
            self._cloud.hosts[host].end(process)

    def do_prepare(self, host: str, duration_s: str) -> None:
        """From lock to start takes so long there."""
        self._cloud.hosts[host].prepare_s = float(duration_s)

    def do_reboot(self, host: str) -> None:
        """In order: the guests are ended, locks given back, the guard stops last, then the machine starts again."""
        machine = self._cloud.hosts[host]
        for process in list(machine.processes.values()):
            machine.kill(process)
        self._cloud.engine.after(2.0, self.do_power_off, host)
        self._cloud.engine.after(2.5, self.do_power_on, host)

    # Networks

    def _others(self, host: str, of: str) -> list[str]:
        cloud = self._cloud
        if of == "etcd":
            return list(cloud.etcd_machines)
        if of == "all":
            names = [*cloud.etcd_machines, *cloud.hosts, *(one.machine.name for one in cloud.schedulers.values())]
            return [name for name in dict.fromkeys(names) if name != host]
        return of.split(",")

    def _link(self, host: str, of: str, way: str, how: Cut | None) -> None:
        network = self._cloud.network
        for other in self._others(host, of):
            pairs = {"both": [(host, other), (other, host)], "out": [(host, other)], "in": [(other, host)]}[way]
            for source, to in pairs:
                if how is None:
                    network.heal(source, to)
                else:
                    network.cut(source, to, how)
        network.settle()

    def do_cut(self, host: str, of: str = "all", way: str = "both") -> None:
        self._link(host, of, way, Cut.SILENT)

    def do_reject(self, host: str, of: str = "etcd") -> None:
        self._link(host, of, "both", Cut.REFUSES)

    def do_heal(self, host: str, of: str = "all") -> None:
        self._link(host, of, "both", None)

    def do_cut_all_hosts(self, of: str = "etcd") -> None:
        for host in self._cloud.hosts:
            self._link(host, of, "both", Cut.SILENT)

    def do_heal_all(self) -> None:
        machines = [*self._cloud.hosts, *self._cloud.etcd_machines]
        machines += [one.machine.name for one in self._cloud.schedulers.values()]
        for machine in dict.fromkeys(machines):
            self._link(machine, "all", "both", None)

    def do_slow(self, host: str, delay_ms: str) -> None:
        self._cloud.network.slow(host, float(delay_ms) / 1000)

    def do_slow_answers(self, host: str, delay_ms: str) -> None:
        self._cloud.network.slow(host, float(delay_ms) / 1000, only_to=True)

    # etcd

    def _member(self, name: str) -> str:
        leader = self._cloud.cluster.leader
        if name != "leader":
            return name
        return leader.name if leader is not None else next(iter(self._cloud.cluster.members))

    def _members(self, name: str) -> list[str]:
        return list(self._cloud.cluster.members) if name == "all" else [self._member(name)]

    def do_stop_etcd(self, name: str) -> None:
        for member in self._members(name):
            self._cloud.cluster.stop(member)

    def do_start_etcd(self, name: str) -> None:
        for member in self._members(name):
            self._cloud.cluster.start(member)

    def do_freeze_etcd(self, name: str) -> None:
        for member in self._members(name):
            self._cloud.cluster.freeze(member)

    def do_thaw_etcd(self, name: str) -> None:
        for member in self._members(name):
            self._cloud.cluster.thaw(member)

    def do_hang_etcd(self, name: str) -> None:
        self._cloud.cluster.hang(self._member(name), True)

    def do_mend_etcd(self, name: str) -> None:
        self._cloud.cluster.hang(name, False)

    def do_always_propose_old_leases(self) -> None:
        self._cloud.cluster.thaw_deletes = 1.0

    def do_nospace(self, word: str) -> None:
        self._cloud.cluster.no_space = word == "on"

    def do_clock_step(self, step_s: str) -> None:
        self._cloud.cluster.step_clock(float(step_s))

    def do_publish_members(self, *names: str) -> None:
        """A tool writes who votes."""
        cloud = self._cloud
        old: Members = cloud.stored(keys.members())
        voters = tuple(Voter(name, str(index), f"https://{name}:1") for index, name in enumerate(names))
        cloud.put((keys.members(), Members(old.cluster_id, old.version + 1, voters)))

    def do_remove_member(self, name: str) -> None:
        self._cloud.cluster.remove(name)

    def do_backup(self) -> None:
        self._backup = dict(self._cloud.cluster.ledger.items)

    def do_restore(self) -> None:
        """Everything of hosts is gone from it: their life signs, and what was written since the backup."""
        self._cloud.tell("store_restored")
        kept = {key: item for key, item in self._backup.items() if not key.startswith(keys.alive_all())}
        self._cloud.cluster.restore(kept)

    # What people and schedulers do

    def _change(self, key: str, **fields: Any) -> None:
        value = self._cloud.stored(key)
        if value is not None:
            self._cloud.put((key, replace(value, **fields)))

    def _respec(self, key: str, **fields: Any) -> None:
        value: Vm | Host | None = self._cloud.stored(key)
        if value is not None:
            meta = replace(value.meta, generation=value.meta.generation + 1)
            self._change(key, spec=replace(value.spec, **fields), meta=meta)

    def do_migrate(self, vm: str, to: str = "") -> None:
        self._requests += 1
        at = format_time(self._cloud.engine.wall())
        request = MigrationRequest(vm, f"request-{self._requests}", to, at)
        self._cloud.put((keys.spec("migration", vm), request))

    def do_cancel(self, vm: str) -> None:
        self._change(keys.spec("migration", vm), cancelled=True)

    def do_drain(self, host: str, how: str = "move") -> None:
        self._respec(keys.spec("host", host), drain=Drain(how), schedulable=False)

    def do_undrain(self, host: str) -> None:
        self._respec(keys.spec("host", host), drain=Drain.NONE, schedulable=True)

    def do_confirm_off(self, host: str) -> None:
        item = self._cloud.cluster.ledger.items.get(keys.registered(host))
        if item is not None:
            incarnation = value_of(item.value).incarnation
            self._respec(keys.spec("host", host), confirmed_off=incarnation, confirmed_revision=item.mod_revision)

    def do_set_failover(self, vm: str, failover: str) -> None:
        self._respec(keys.spec("vm", vm), failover=Failover(failover))

    def do_stop_vm(self, vm: str) -> None:
        self._respec(keys.spec("vm", vm), power=Power.STOPPED)

    def do_start_vm(self, vm: str) -> None:
        self._respec(keys.spec("vm", vm), power=Power.RUNNING)

    def do_kill_scheduler(self, name: str) -> None:
        self._cloud.schedulers[name].place.dead = True

    def do_start_scheduler(self, name: str) -> None:
        if self._cloud.schedulers[name].place.is_dead:
            self._cloud.start_scheduler(name)

    def do_freeze_scheduler(self, name: str) -> None:
        self._cloud.engine.freeze(self._cloud.schedulers[name].place)

    def do_thaw_scheduler(self, name: str) -> None:
        self._cloud.engine.thaw(self._cloud.schedulers[name].place)

    def do_write(self, number: str) -> None:
        """An API node writes, through any member that answers; what it is answered must stay."""
        ApiWrite(self._cloud, number).begin()

    # Looking

    def do_check(self, vm: str, where: str) -> None:
        """``where`` is a host, "nowhere", "once" (on any one host), "maybe" (on at most one) or "!h1" (on another)."""
        found = self._cloud.running().get(vm, [])
        good = {"nowhere": not found, "once": len(found) == 1, "maybe": len(found) <= 1}.get(where, found == [where])
        if where.startswith("!"):
            good = len(found) == 1 and found != [where[1:]]
        if not good:
            self._cloud.say(f"NOT AS EXPECTED: {vm} runs on {', '.join(found) or 'no host'}, not {where}")
