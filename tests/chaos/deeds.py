"""Does to a lab what a schedule says, when it says so.

What only asks the API (migrations, drains) has a thread of its own: the API may not answer, and faults must not wait.
A deed that cannot be done now, for what others have done before, is noted and left out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tests.chaos.schedule import Deed, Schedule
from ucloud.client import Client
from ucloud.errors import Error
from ucloud.lab.cuts import Way
from ucloud.lab.driver import Lab
from ucloud.lab.faults import Faults
from ucloud.lab.ledger import Fault

_ASK_S = 3.0


class Doer:
    """Of one schedule. ``refused`` are the deeds that could not be done, with the reason."""

    def __init__(self, lab: Lab, vm_ids: list[str]) -> None:
        self._lab = lab
        self._vm_ids = vm_ids
        self._faults = lab.faults
        self._threads: list[threading.Thread] = []
        self.refused: list[str] = []

    def play(self, schedule: Schedule) -> None:
        """All deeds and their ends. Returns after the last."""
        began_s = time.monotonic()
        steps = [(deed.at_s, deed, False) for deed in schedule.deeds]
        steps += [(deed.at_s + deed.for_s, deed, True) for deed in schedule.deeds if deed.for_s]
        made: dict[int, list[Fault]] = {}
        for at_s, deed, is_end in sorted(steps, key=lambda step: step[0]):
            time.sleep(max(0.0, began_s + at_s - time.monotonic()))
            if is_end:
                self._end(deed, made.get(id(deed), []))
            else:
                made[id(deed)] = self._begin(deed)

    def heal(self) -> None:
        """Undo everything. Raises what healing raises."""
        for thread in self._threads:
            thread.join(4 * _ASK_S)
        self._faults.heal()

    def _begin(self, deed: Deed) -> list[Fault]:
        if deed.kind in ASKS:
            self._ask(deed, ASKS[deed.kind])
            return []
        try:
            done = FAULTS[deed.kind](self._faults, deed)
        except Error as error:
            self.refused.append(f"{deed}: {error.message}")
            return []
        found = done if isinstance(done, list) else [done]
        return [one for one in found if isinstance(one, Fault)]

    def _end(self, deed: Deed, made: list[Fault]) -> None:
        if deed.kind == "drain":
            self._ask(deed, _undrain)
        for fault in made:
            try:
                self._faults.undo(fault.id)
            except Error as error:
                self.refused.append(f"end of {deed}: {error.message}")

    def _ask(self, deed: Deed, work: Callable[[Client, Deed, list[str]], object]) -> None:
        def body() -> None:
            try:
                self._lab.ask(lambda client: work(client, deed, self._vm_ids), timeout_s=_ASK_S, patience_s=_ASK_S)
            except Error as error:
                self.refused.append(f"{deed}: {error.message}")

        thread = threading.Thread(target=body, name=deed.kind, daemon=True)
        self._threads.append(thread)
        thread.start()


def _cut(faults: Faults, deed: Deed) -> Fault:
    facts = deed.facts
    return faults.cut(deed.where, peers=facts["peers"], way=Way(facts["way"]), reject=facts["reject"])


def _stop_etcd(faults: Faults, deed: Deed) -> list[Fault]:
    return faults.etcd.stop([] if deed.where == "all" else [deed.where])


def _slow(faults: Faults, deed: Deed) -> Fault:
    return faults.slow(deed.where, delay_s=deed.facts["delay_s"], loss=deed.facts["loss"])


FAULTS: dict[str, Callable[[Faults, Deed], Any]] = {
    "power_off": lambda faults, deed: faults.power_off(deed.where),
    "cut": _cut,
    "freeze": lambda faults, deed: faults.freeze(deed.where),
    "freeze_program": lambda faults, deed: faults.freeze_program(deed.where, deed.facts["program"]),
    "kill": lambda faults, deed: faults.kill(deed.where, deed.facts["program"]),
    "kill_leader": lambda faults, deed: faults.etcd.kill_leader(),
    "freeze_leader": lambda faults, deed: faults.etcd.freeze_leader(for_s=0.0),
    "stop_etcd": _stop_etcd,
    "blip_all": lambda faults, deed: faults.blip_all(for_s=deed.for_s),
    "slow": _slow,
}


def _migrate(client: Client, deed: Deed, vm_ids: list[str]) -> None:
    vm_id = vm_ids[int(deed.where) % len(vm_ids)]
    client.act(vm_id, "migrate")
    if deed.facts["cancel"]:
        time.sleep(0.3)
        client.act(vm_id, "cancel-migration")


def _drain(client: Client, deed: Deed, _: list[str]) -> None:
    client.act(deed.where, "drain", {"stop": deed.facts["stop"]}, noun="host")


def _undrain(client: Client, deed: Deed, _: list[str]) -> None:
    client.act(deed.where, "undrain", noun="host")


ASKS: dict[str, Callable[[Client, Deed, list[str]], None]] = {"migrate": _migrate, "drain": _drain}
