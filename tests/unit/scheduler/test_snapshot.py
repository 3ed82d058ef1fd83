"""What is claimed of each host: of its own, of the pool it shares, and by what is on its way there."""

from __future__ import annotations

from dataclasses import replace

from tests.unit import samples
from ucloud.config import SchedulerSection
from ucloud.model.host import Drain, HostSpec
from ucloud.model.migration import Phase
from ucloud.model.seen import Fence, SeenHost, SeenPool
from ucloud.scheduler.feasible import refusal_of
from ucloud.scheduler.snapshot import Resources, Snapshot, build_snapshot

SHARED = SeenPool("pool-1", Fence.LOCK, ("host-1", "host-2"))
PLACED = replace(samples.PLACEMENT, pool_id="pool-1")


def snapshot(*reports: SeenHost, **fields: object) -> Snapshot:
    plain = {
        "revision": 1,
        "hosts": [samples.host(number) for number in range(1, len(reports) + 1)],
        "seen": {report.host_id: report for report in reports},
        "alive": frozenset(report.host_id for report in reports),
        "placements": [PLACED],
        "digests": {},
        "settings": SchedulerSection(),
    }
    return build_snapshot(**{**plain, **fields})


def claimed(made: Snapshot) -> dict[str, Resources]:
    return {host_id: candidate.claimed for host_id, candidate in made.candidates.items()}


def test_a_shared_pool_is_claimed_for_all_that_share_it() -> None:
    made = snapshot(samples.report(1, pool=SHARED), samples.report(2, pool=SHARED), samples.report(3))
    assert claimed(made) == {
        "host-1": Resources(2, 512, 10),
        "host-2": Resources(0, 0, 10),
        "host-3": Resources(),
    }
    assert claimed(made.with_claim("host-2", Resources(1, 100, 5))) == {
        "host-1": Resources(2, 512, 15),
        "host-2": Resources(1, 100, 15),
        "host-3": Resources(),
    }


def test_a_placement_from_before_pools_had_names_counts_for_its_hosts_pool() -> None:
    old = replace(PLACED, pool_id="")
    made = snapshot(samples.report(1, pool=SHARED), samples.report(2, pool=SHARED), placements=[old])
    assert claimed(made)["host-2"] == Resources(0, 0, 10)
    assert claimed(snapshot(samples.report(1), placements=[old]))["host-1"] == Resources(2, 512, 10)


def test_the_disk_of_a_vm_without_a_host_still_takes_its_room() -> None:
    made = snapshot(samples.report(1, pool=SHARED), placements=[replace(PLACED, host_id="")])
    assert claimed(made)["host-1"] == Resources(0, 0, 10)


def test_a_migrating_vm_counts_on_both_hosts() -> None:
    reports = (samples.report(1, pool=SHARED), samples.report(2, pool=SHARED))
    made = snapshot(*reports, migrations=[samples.MIGRATION])
    assert claimed(made)["host-2"] == Resources(2, 512, 10)
    over = replace(samples.MIGRATION, phase=Phase.DONE)
    assert claimed(snapshot(*reports, migrations=[over]))["host-2"] == Resources(0, 0, 10)
    moved = replace(samples.MIGRATION, phase=Phase.MOVED)
    placed = replace(PLACED, host_id="host-2")
    assert claimed(snapshot(*reports, migrations=[moved], placements=[placed]))["host-1"] == Resources(2, 512, 10)


def test_a_disk_goes_only_where_it_is_and_needs_no_room_there() -> None:
    full = replace(SHARED, id="pool-1")
    made = snapshot(samples.report(1, pool=full, pool_full=True, disk_mib=0), samples.report(2))
    ask = Resources(1, 100, 0)
    assert refusal_of(ask, made.candidates["host-1"], pool_id="pool-1") is None
    elsewhere = refusal_of(ask, made.candidates["host-2"], pool_id="pool-1")
    assert elsewhere is not None
    assert (elsewhere.rule, "pool-1, where its disk is" in elsewhere.reason) == ("pool", True)


def test_a_host_that_is_emptied_is_no_candidate() -> None:
    draining = replace(samples.host(1), spec=HostSpec(drain=Drain.STOP))
    refusal = refusal_of(Resources(), snapshot(samples.report(1), hosts=[draining]).candidates["host-1"])
    assert refusal is not None
    assert (refusal.rule, refusal.reason) == ("schedulable", "is being drained")
