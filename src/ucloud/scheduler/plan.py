"""The decision for one VM: which host, and why. Pure: the same VM and snapshot always give the same placement."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from ucloud.model.placement import Decision, Placement, Refusal, Score
from ucloud.model.vm import Vm
from ucloud.scheduler.anew import restarts_too_often, with_restart
from ucloud.scheduler.feasible import refusal_of
from ucloud.scheduler.rank import score_of
from ucloud.scheduler.snapshot import Resources, Snapshot, request_of, resources_of

EXAMPLES_LIMIT = 20
SCORES_LIMIT = 5


def plan_placement(
    vm: Vm, snapshot: Snapshot, *, previous: Placement | None = None, at: str = "", was_lost: bool | None = None
) -> Placement:
    """Where ``vm`` should go. ``host_id`` is "" if no host can take it; the decision then says why.

    A VM that has a host keeps it; only what it takes there may change. One that lost its host (a previous placement
    without one, but with a pool) goes where its disk is to be had, and not at once if that happens too often.
    ``was_lost`` says whether its host was taken over; None: as the previous placement looks.
    """
    if previous is not None and previous.host_id:
        return _resize(vm, snapshot, previous, at)
    pool_id = previous.pool_id if previous else ""
    too_often = restarts_too_often(previous, at) if previous and at else ""
    if too_often:
        decision, host_id = Decision(snapshot.revision, 0, reason=too_often), ""
    else:
        decision, host_id = _decide(vm, snapshot, previous)
    placement = Placement(
        vm_id=vm.meta.id,
        host_id=host_id,
        generation=(previous.generation if previous else 0) + 1,
        spec_generation=vm.meta.generation,
        cpus=vm.spec.cpus,
        memory_mib=vm.spec.memory_mib,
        disk_gib=vm.spec.disk_gib if host_id or previous is None else previous.disk_gib,
        at=at,
        decision=decision,
        pool_id=snapshot.candidates[host_id].pool_id if host_id else pool_id,
        failovers=previous.failovers if previous else (),
    )
    counts = bool(pool_id) if was_lost is None else was_lost
    return replace(placement, failovers=with_restart(placement, at)) if host_id and counts and at else placement


def _decide(vm: Vm, snapshot: Snapshot, previous: Placement | None) -> tuple[Decision, str]:
    """The decision, and the host: "" if there is none."""
    pool_id = previous.pool_id if previous else ""
    request = request_of(vm)
    if previous is not None and pool_id:
        request = request.minus(Resources(disk_gib=previous.disk_gib))
    digest = snapshot.digests.get(vm.spec.image_id, "")
    refusals: list[Refusal] = []
    scores: list[Score] = []
    for host_id in sorted(snapshot.candidates):
        host = snapshot.candidates[host_id]
        refusal = refusal_of(request, host, pool_id=pool_id)
        if refusal is None:
            scores.append(score_of(request, digest, host))
        else:
            refusals.append(refusal)
    scores.sort(key=lambda score: (-score.total, score.host_id))
    decision = Decision(
        revision=snapshot.revision,
        considered=len(snapshot.candidates),
        refused=dict(sorted(Counter(refusal.rule for refusal in refusals).items())),
        examples=tuple(refusals[:EXAMPLES_LIMIT]),
        scores=tuple(scores[:SCORES_LIMIT]),
        reason=_reason(snapshot, scores, refusals),
    )
    return decision, scores[0].host_id if scores else ""


def _resize(vm: Vm, snapshot: Snapshot, previous: Placement, at: str) -> Placement:
    """The placement with the VM's new sizes, or with the old ones and the reason if the host is too small."""
    wanted, has = request_of(vm), resources_of(previous)
    host = snapshot.candidates.get(previous.host_id)
    pool_id = previous.pool_id or (host.pool_id if host else "")
    free = host.free.plus(has) if host else has
    fits = wanted.cpus <= free.cpus and wanted.memory_mib <= free.memory_mib and wanted.disk_gib <= free.disk_gib
    granted = wanted if fits or _not_larger(wanted, has) else has
    reason = f"stays on {previous.host_id}, where its disk is"
    if granted is not wanted:
        reason += (
            f", with its old sizes: the host could give it {free.cpus:g} cpus, {free.memory_mib} MiB memory "
            f"and {free.disk_gib} GiB disk"
        )
    return Placement(
        vm_id=vm.meta.id,
        host_id=previous.host_id,
        generation=previous.generation,
        spec_generation=vm.meta.generation,
        cpus=int(granted.cpus),
        memory_mib=granted.memory_mib,
        disk_gib=granted.disk_gib,
        at=at,
        decision=Decision(snapshot.revision, 1, scores=previous.decision.scores, reason=reason),
        pool_id=pool_id,
        failovers=previous.failovers,
    )


def _not_larger(wanted: Resources, has: Resources) -> bool:
    return wanted.cpus <= has.cpus and wanted.memory_mib <= has.memory_mib and wanted.disk_gib <= has.disk_gib


def _reason(snapshot: Snapshot, scores: list[Score], refusals: list[Refusal]) -> str:
    if scores:
        return f"{scores[0].host_id} scored best of {len(scores)} possible hosts"
    if not snapshot.candidates:
        return "there is no host"
    told = "; ".join(f"{refusal.host_id} {refusal.reason}" for refusal in refusals[:3])
    more = f"; and {len(refusals) - 3} more" if len(refusals) > 3 else ""
    return f"no host can take it: {told}{more}"
