"""The checker of safety against histories made by hand: good ones pass, and each kind of bad one is named."""

from __future__ import annotations

from typing import Any

import pytest

from ucloud.lab.checker import Event, Violation, check_history
from ucloud.lab.violations import ViolationKind as Kind
from ucloud.store import keys

INCARNATIONS = {"h1": "a", "h2": "b", "h3": "c"}


class Tale:
    """Writes a history; ``h1``'s guard is incarnation "a", ``h2``'s "b"."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.revision = 0
        for host, incarnation in INCARNATIONS.items():
            self.put(0.0, keys.alive(host), host=host, incarnation=incarnation)

    def tell(self, at_s: float, kind: str, **facts: Any) -> Tale:
        self.events.append({"at_s": at_s, "source": "test", "kind": kind, "dropped": 0, **facts})
        return self

    def put(self, at_s: float, *wanted: str, **value: Any) -> Tale:
        self.revision += 1
        for key in wanted:
            self.tell(at_s, "store_put", key=key, revision=self.revision, **value)
        return self

    def delete(self, at_s: float, key: str) -> Tale:
        self.revision += 1
        return self.tell(at_s, "store_delete", key=key, revision=self.revision)

    def place(self, at_s: float, host: str, generation: int) -> Tale:
        return self.put(at_s, keys.placement("vm"), host=host, generation=generation)

    def lock(self, at_s: float, host: str, generation: int) -> Tale:
        return self.put(at_s, keys.lock(host, "vm"), **self.of(host, generation))

    def unlock(self, at_s: float, host: str) -> Tale:
        return self.delete(at_s, keys.lock(host, "vm"))

    def start(self, at_s: float, host: str, generation: int, *, mode: str = "run", pid: int = 0) -> Tale:
        self.tell(at_s, "vm_start", vm="vm", boots=1, mode=mode, **self.of(host, generation))
        return self.tell(at_s, "vm_born", vm="vm", host=host, pid=pid) if pid else self

    def of_vm(self, at_s: float, kind: str, host: str) -> Tale:
        return self.tell(at_s, kind, vm="vm", host=host)

    def of(self, host: str, generation: int) -> dict[str, Any]:
        return {"host": host, "incarnation": INCARNATIONS[host], "generation": generation}

    def end(self, at_s: float = 100.0) -> list[Violation]:
        self.tell(at_s, "history_end")
        return check_history(self.events)


def kinds(found: list[Violation]) -> list[Kind]:
    return [violation.kind for violation in found]


def running() -> Tale:
    """Placed on h1, locked and running there."""
    return Tale().place(1.0, "h1", 1).lock(2.0, "h1", 1).start(3.0, "h1", 1, pid=41)


def taken_over() -> Tale:
    """h1 was lost, its VM killed at 10, its lock freed at 12 and the VM placed on h2 at 13."""
    tale = running().tell(10.0, "pid_exit", pid=41)
    return tale.delete(8.0, keys.alive("h1")).unlock(12.0, "h1").place(13.0, "h2", 2)


def test_a_takeover_in_order_is_a_proof() -> None:
    assert taken_over().lock(14.0, "h2", 2).start(15.0, "h2", 2).end() == []


def test_a_migration_in_order_is_a_proof() -> None:
    tale = running().start(5.0, "h2", 2, mode="incoming", pid=42).of_vm(6.0, "vm_paused", "h1")
    tale.delete(7.0, keys.lock("h1", "vm"))
    tale.events[-1] = {**tale.events[-1], "revision": tale.revision}
    for event in ("lock", "placement"):  # one transaction
        key = keys.lock("h2", "vm") if event == "lock" else keys.placement("vm")
        tale.tell(7.0, "store_put", key=key, revision=tale.revision, **tale.of("h2", 2))
    assert tale.of_vm(8.0, "vm_resume", "h2").of_vm(9.0, "vm_exit", "h1").end() == []


def test_two_running_at_a_time() -> None:
    found = (
        running().delete(4.0, keys.lock("h1", "vm")).place(5.0, "h2", 2).lock(6.0, "h2", 2).start(7.0, "h2", 2).end()
    )
    assert Kind.OVERLAP in kinds(found)


def test_an_exit_told_after_the_next_start_is_an_overlap() -> None:
    tale = running().unlock(4.0, "h1").place(5.0, "h2", 2).lock(6.0, "h2", 2).start(7.0, "h2", 2)
    found = tale.tell(7.2, "pid_exit", pid=41).end()
    assert "for 0.200 s" in next(one.text for one in found if one.kind is Kind.OVERLAP)


def test_two_processes_of_a_vm_on_one_host() -> None:
    assert Kind.OVERLAP in kinds(running().start(5.0, "h1", 1).end())


def test_a_target_that_resumes_while_the_source_runs() -> None:
    found = running().start(5.0, "h2", 2, mode="incoming").of_vm(6.0, "vm_resume", "h2").end()
    assert kinds(found) == [Kind.OVERLAP, Kind.RUNS_WITHOUT_LOCK]


def test_a_source_that_continues_after_the_target_did() -> None:
    tale = running().start(5.0, "h2", 2, mode="incoming").of_vm(6.0, "vm_paused", "h1")
    found = tale.of_vm(7.0, "vm_resume", "h2").of_vm(8.0, "vm_resume", "h1").end()
    assert Kind.OVERLAP in kinds(found)


@pytest.mark.parametrize("end", [{"born": False}, {"exit_code": 1, "signal": 0}])
def test_a_start_that_failed_never_ran(end: dict[str, Any]) -> None:
    tale = running().unlock(4.0, "h1").place(5.0, "h2", 2).lock(6.0, "h2", 2).start(7.0, "h2", 2, pid=42)
    tale.tell(7.1, "pid_exit", pid=42).tell(7.2, "vm_exit", vm="vm", host="h2", **end).tell(7.3, "pid_exit", pid=41)
    assert Kind.OVERLAP not in kinds(tale.end())


def test_an_end_by_a_signal_says_nothing_about_having_run() -> None:
    tale = running().unlock(4.0, "h1").place(5.0, "h2", 2).lock(6.0, "h2", 2).start(7.0, "h2", 2, pid=42)
    found = tale.tell(7.2, "vm_exit", vm="vm", host="h2", exit_code=-1, signal=9).end()
    assert Kind.OVERLAP in kinds(found)


def test_who_tells_names_the_host_if_nothing_else_does() -> None:
    tale = running()
    tale.events.append({"at_s": 5.0, "source": "guard/h1", "kind": "vm_freeze", "dropped": 0, "vm": "vm"})
    tale.unlock(6.0, "h1").place(7.0, "h2", 2).lock(8.0, "h2", 2).start(9.0, "h2", 2).tell(10.0, "pid_exit", pid=41)
    assert tale.end() == []


def test_frozen_time_is_not_running() -> None:
    tale = running().of_vm(5.0, "vm_freeze", "h1").unlock(6.0, "h1").place(7.0, "h2", 2).lock(8.0, "h2", 2)
    tale.start(9.0, "h2", 2).tell(10.0, "pid_exit", pid=41)
    assert tale.end() == []


def test_a_thaw_beside_another_copy_is_an_overlap() -> None:
    tale = running().of_vm(5.0, "vm_freeze", "h1").unlock(6.0, "h1").place(7.0, "h2", 2).lock(8.0, "h2", 2)
    found = tale.start(9.0, "h2", 2).of_vm(10.0, "vm_thaw", "h1").end()
    assert {Kind.OVERLAP, Kind.RUNS_WITHOUT_LOCK} <= set(kinds(found))


@pytest.mark.parametrize("cut_off", [True, False])
def test_a_whole_host_that_thaws_is_covered_by_the_second_line_alone(cut_off: bool) -> None:
    tale = running().tell(5.0, "host_frozen", host="h1").unlock(12.0, "h1").place(13.0, "h2", 2).lock(14.0, "h2", 2)
    if cut_off:
        tale.tell(11.0, "pool_fenced", host="h1", incarnation="a")
    tale.start(15.0, "h2", 2).tell(20.0, "host_thawed", host="h1").tell(20.01, "pid_exit", pid=41)
    assert kinds(tale.end()) == ([] if cut_off else [Kind.OVERLAP])


@pytest.mark.parametrize("born_s", [15.2, 15.05])
def test_behind_a_frozen_guard_the_next_one_may_be_on_its_way_but_not_born(born_s: float) -> None:
    tale = running().tell(5.0, "guard_frozen", host="h1").unlock(12.0, "h1").place(13.0, "h2", 2).lock(14.0, "h2", 2)
    tale.start(15.0, "h2", 2).tell(15.1, "pid_exit", pid=41).tell(born_s, "vm_born", vm="vm", host="h2", pid=42)
    assert kinds(tale.end()) == ([] if born_s > 15.1 else [Kind.OVERLAP])


@pytest.mark.parametrize("running_s", [20.3, 20.05])
@pytest.mark.parametrize("start_s", [19.9, 20.05])
def test_behind_a_frozen_host_the_next_guest_begins_once_the_disk_is_free(start_s: float, running_s: float) -> None:
    tale = running().tell(5.0, "host_frozen", host="h1").unlock(12.0, "h1").place(13.0, "h2", 2).lock(14.0, "h2", 2)
    tale.start(start_s, "h2", 2, pid=42).tell(20.0, "host_thawed", host="h1").tell(20.1, "pid_exit", pid=41)
    tale.tell(running_s, "vm_running", vm="vm", host="h2", generation=2, pid=42)
    assert kinds(tale.end()) == ([] if running_s > 20.1 else [Kind.OVERLAP])


def test_of_an_undisturbed_host_the_start_counts_not_the_guest() -> None:
    tale = running().unlock(12.0, "h1").place(13.0, "h2", 2).lock(14.0, "h2", 2).start(15.0, "h2", 2, pid=42)
    tale.tell(15.1, "pid_exit", pid=41).tell(15.2, "vm_running", vm="vm", host="h2", generation=2, pid=42)
    assert Kind.OVERLAP in kinds(tale.end())


def test_a_host_that_lost_its_power_runs_nothing() -> None:
    tale = running().tell(5.0, "host_off", host="h1").unlock(12.0, "h1").place(13.0, "h2", 2).lock(14.0, "h2", 2)
    assert tale.start(15.0, "h2", 2).end() == []


def test_a_run_without_a_lock() -> None:
    assert kinds(Tale().place(1.0, "h1", 1).start(3.0, "h1", 1).end()) == [Kind.RUNS_WITHOUT_LOCK]


def test_a_run_with_the_lock_of_another_incarnation() -> None:
    tale = Tale().place(1.0, "h1", 1).lock(2.0, "h1", 1)
    tale.tell(3.0, "vm_start", vm="vm", host="h1", incarnation="old", generation=1, boots=1, mode="run")
    assert kinds(tale.end()) == [Kind.RUNS_WITHOUT_LOCK]


def test_a_run_that_outlasts_its_lock() -> None:
    found = running().unlock(5.0, "h1").tell(6.0, "pid_exit", pid=41).end()
    assert kinds(found) == [Kind.RUNS_WITHOUT_LOCK]


def test_a_kill_after_the_lock_was_gone_comes_too_late() -> None:
    found = running().unlock(5.0, "h1").of_vm(5.5, "vm_kill", "h1").tell(5.51, "pid_exit", pid=41).end()
    assert kinds(found) == [Kind.RUNS_WITHOUT_LOCK]


def test_who_was_killed_in_time_may_hang_in_the_kernel() -> None:
    found = running().of_vm(4.5, "vm_kill", "h1").unlock(5.0, "h1").tell(9.0, "pid_exit", pid=41).end()
    assert found == []


def test_the_holder_may_hear_of_its_lock_before_the_recorder() -> None:
    tale = Tale().place(1.0, "h1", 1).tell(2.0, "lock_taken", vm="vm", **Tale().of("h1", 1))
    assert tale.start(3.0, "h1", 1).lock(3.5, "h1", 1).end() == []


def test_two_locks_of_a_vm() -> None:
    found = running().place(5.0, "h2", 2).lock(6.0, "h2", 2).end()
    assert kinds(found) == [Kind.LOCK_SHARED]


def test_a_lock_for_a_placement_that_is_not_current() -> None:
    assert kinds(Tale().place(1.0, "h2", 2).lock(2.0, "h1", 1).end()) == [Kind.LOCK_NOT_PLACED]


def test_a_lock_without_a_life_sign() -> None:
    found = Tale().place(1.0, "h1", 1).delete(1.5, keys.alive("h1")).lock(2.0, "h1", 1).end()
    assert kinds(found) == [Kind.LOCK_NOT_ALIVE]


def test_a_lock_of_a_fenced_incarnation() -> None:
    tale = Tale().place(1.0, "h1", 1).put(1.5, keys.fenced("h1", "a"), host="h1", incarnation="a")
    assert kinds(tale.lock(2.0, "h1", 1).end()) == [Kind.LOCK_OF_FENCED]


def test_a_placement_whose_generation_fell() -> None:
    assert kinds(Tale().place(1.0, "h1", 3).place(2.0, "h2", 2).end()) == [Kind.GENERATION_FELL]


def test_a_restored_backup_may_hold_lower_generations() -> None:
    tale = Tale().place(1.0, "h1", 3).tell(1.5, "store_restored").place(2.0, "h2", 2)
    assert tale.end() == []


def test_a_vm_that_ran_in_a_lower_generation() -> None:
    tale = Tale().place(1.0, "h1", 2).lock(2.0, "h1", 2).start(3.0, "h1", 2, pid=41).tell(4.0, "pid_exit", pid=41)
    found = tale.unlock(5.0, "h1").tell(5.5, "store_restored").place(6.0, "h2", 1).lock(7.0, "h2", 1)
    assert kinds(found.start(8.0, "h2", 1).end()) == [Kind.GENERATION_FELL]


def test_a_volume_written_by_two() -> None:
    tale = Tale().tell(9.0, "storage_write", volume="vm", host="h1", incarnation="a", first_s=1.0, last_s=9.0)
    tale.tell(9.5, "storage_write", volume="vm", host="h2", incarnation="b", first_s=8.9, last_s=9.5)
    assert kinds(tale.end()) == [Kind.WRITE_OVERLAP]


def test_a_volume_written_after_its_writer_was_fenced() -> None:
    tale = Tale().tell(5.0, "pool_fenced", host="h1", incarnation="a")
    tale.tell(9.0, "storage_write", volume="vm", host="h1", incarnation="a", first_s=1.0, last_s=9.0)
    assert kinds(tale.end()) == [Kind.WRITE_AFTER_FENCE]


def test_an_answered_write_that_is_not_there() -> None:
    tale = Tale().tell(1.0, "write_acked", id="1", key="spec/vm/1").tell(1.0, "write_acked", id="2", key="spec/vm/2")
    found = tale.tell(50.0, "write_found", id="1").end()
    assert kinds(found) == [Kind.LOST_WRITE]
    assert "spec/vm/2" in found[0].text


def test_a_fence_with_fresh_evidence() -> None:
    tale = Tale().tell(4.0, "evidence", host="h1", sent_s=4.0).tell(6.0, "fence", host="h1", fence_s=3.0, reason="late")
    assert kinds(tale.end()) == [Kind.FALSE_FENCE]


def test_a_fence_without_evidence_is_in_order() -> None:
    tale = Tale().tell(4.0, "evidence", host="h1", sent_s=4.0).tell(7.0, "fence", host="h1", fence_s=3.0, reason="late")
    assert tale.end() == []


def test_dropped_facts_are_no_proof() -> None:
    tale = Tale()
    tale.events.append({"at_s": 5.0, "source": "guard/h1", "kind": "registered", "dropped": 2, "host": "h1"})
    tale.events[-1] = {**tale.events[-1], "incarnation": "a"}
    found = tale.end()
    assert kinds(found) == [Kind.INCOMPLETE]
    assert "guard/h1" in found[0].text


def test_a_history_without_an_end_is_no_proof() -> None:
    assert kinds(check_history(Tale().events)) == [Kind.INCOMPLETE]
    assert kinds(check_history([])) == [Kind.INCOMPLETE]


def test_a_process_whose_start_nobody_told() -> None:
    assert kinds(Tale().tell(1.0, "vm_born", vm="vm", host="h1", pid=7).end()) == [Kind.INCOMPLETE]


def test_a_start_whose_birth_and_end_nobody_told() -> None:
    tale = running()
    tale.events = [event for event in tale.events if event["kind"] != "vm_born"]
    tale.unlock(5.0, "h1").place(6.0, "h2", 2).lock(7.0, "h2", 2).start(8.0, "h2", 2)
    found = tale.tell(20.0, "registered", host="h1", incarnation="a2").end()
    assert Kind.INCOMPLETE in kinds(found)
    assert Kind.OVERLAP not in kinds(found)


def test_what_is_found_is_in_the_order_of_time() -> None:
    found = running().start(5.0, "h2", 2).place(6.0, "h1", 0).end()
    assert [one.at_s for one in found] == sorted(one.at_s for one in found)
    assert str(found[0]).startswith("5.000 ")
