"""What a simulated agent says of its VMs: written when it is news, each report after the one before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.scenario.simulation.door import Door
from tests.scenario.simulation.engine import Place
from ucloud.errors import Error
from ucloud.model.migration import Migration, MigrationState, Role, SeenMigration
from ucloud.model.seen import GuestState, SeenVm
from ucloud.store import keys
from ucloud.store.api import Put, Txn, absent, unchanged
from ucloud.store.codec import encode
from ucloud.system.clock import format_time

if TYPE_CHECKING:
    from tests.scenario.simulation.host import SimulatedHost

_AGAIN_S = 0.5


class Reporter:
    """``parts`` are the newest words about migrations, by VM. ``door`` opens one for a run."""

    def __init__(self, host: SimulatedHost, place: Place, door: Callable[[], Door]) -> None:
        self.host = host
        self.engine = host.cloud.engine
        self.place = place
        self.parts: dict[str, SeenMigration] = {}
        self._door = door
        self._reported: dict[str, tuple[SeenVm, int]] = {}

    def say(self, vm: str, record: Migration, state: MigrationState, reason: str = "") -> None:
        """Report this host's part in a migration."""
        role = Role.SOURCE if record.source == self.host.name else Role.TARGET
        self.parts[vm] = SeenMigration(record.id, role, state, reason)
        self.write(vm)

    def note_gone(self, vm: str) -> None:
        """Nothing of it is left here; worth a report if there ever was one."""
        if vm in self._reported:
            self.write(vm)

    def write(self, vm: str) -> None:
        """Written if it says something new; tried again until it is."""
        process = self.host.processes.get(vm)
        part = self.parts.get(vm)
        state = GuestState.GONE
        if process is not None:
            state = GuestState.PAUSED if process.stands else GuestState.RUNNING
        generation = process.spec.generation if process else self.host.generations.get(vm, 0)
        report = SeenVm(
            vm,
            generation,
            1,
            state,
            "",
            format_time(self.engine.wall()),
            boots=1,
            wanted_revision=2**40,
            migration=part,
        )
        before, revision = self._reported.get(vm, (None, 0))
        if before is not None and replace(before, since=report.since) == report:
            return
        self._reported[vm] = (report, revision)
        self._write(vm, report, revision)

    def _write(self, vm: str, report: SeenVm, revision: int) -> None:
        key = keys.seen(self.host.name, "vm", vm)

        def body(door: Door) -> int:
            compare = unchanged(key, revision) if revision else absent(key)
            done = door.commit(Txn((compare,), (Put(key, encode(report)),)))
            if done.ok:
                return done.revision
            item = door.get(key)
            done = door.commit(Txn((unchanged(key, item.mod_revision if item else 0),), (Put(key, encode(report)),)))
            return done.revision if done.ok else 0

        def written(answer: Any) -> None:
            newest = self._reported[vm][0]
            if isinstance(answer, Error) or not answer:
                self.engine.after(_AGAIN_S, self._write, vm, newest, 0, place=self.place)
                return
            self._reported[vm] = (newest, answer)
            if newest != report:
                self._write(vm, newest, answer)

        self._door().run(body, written)
