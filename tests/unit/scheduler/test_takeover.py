"""The rules of a takeover: never before W in one raft term, never against the brake, never a host that is back."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import samples
from ucloud.model.guard import Fenced, LifeSign, Takeover, TakeoverPhase
from ucloud.model.host import HostSpec
from ucloud.model.seen import Fence, SeenPool
from ucloud.scheduler.takeover import (
    BRAKE_WINDOW_S,
    POLL_S,
    Answer,
    Hold,
    LostHost,
    Quiet,
    Step,
    brake_limit,
    done_record,
    hear,
    hold_of,
    losses,
    lost_hosts,
    next_step,
    old_records,
    pools_to_fence,
    record_of,
    returned_hosts,
    unknown_pools,
)
from ucloud.store.view import Entry, View
from ucloud.system.clock import format_time

NOW = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
SIGN = LifeSign("host-1", "inc-1", samples.AT, fence_s=3.0, kill_s=0.25)
LOST = LostHost("host-1", "inc-1", 7, 3.0, 0.25)
MARKED = replace(LOST, fenced_revision=9)
W = 3.5


def answer(at_s: float, *, term: int = 1, fenced: bool = False, **fields: object) -> Answer:
    plain = Answer(at_s, at_s, term, alive=False, registered_revision=7, fenced=fenced)
    return replace(plain, **fields)


def view(**fields: object) -> View:
    registered = {"host-1": Entry("registered", SIGN, 7)}
    hosts = {"host-1": Entry("h", samples.HOST, 3)}
    return View(**{"revision": 10, "registered": registered, "hosts": hosts, **fields})


def takeover(
    phase: TakeoverPhase = TakeoverPhase.DONE, *, lost_at: str = samples.AT, incarnation: str = "inc-1"
) -> Takeover:
    return Takeover("host-1", incarnation, phase, "because", lost_at, lost_at)


def test_w_is_what_the_host_promised() -> None:
    assert LOST.wait_s == W
    assert replace(LOST, fence_s=10.0, kill_s=1.0).wait_s == 11.25


@pytest.mark.parametrize(
    ("fields", "ids"),
    [
        ({}, ["host-1"]),
        ({"alive": {"host-1": Entry("alive", SIGN, 8)}}, []),
        ({"takeovers": {"host-1": Entry("t", takeover(), 9)}}, ["host-1"]),
        (
            {
                "takeovers": {"host-1": Entry("t", takeover(), 9)},
                "fenced": {("host-1", "inc-1"): Entry("f", Fenced("host-1", "inc-1", samples.AT), 8)},
            },
            [],
        ),
        (
            {
                "takeovers": {"host-1": Entry("t", takeover(incarnation="inc-0"), 9)},
                "fenced": {("host-1", "inc-0"): Entry("f", Fenced("host-1", "inc-0", samples.AT), 8)},
            },
            ["host-1"],
        ),
    ],
    ids=["gone", "alive", "done without a mark", "done", "an earlier incarnation was done"],
)
def test_which_hosts_are_lost(fields: dict[str, object], ids: list[str]) -> None:
    assert [host.host_id for host in lost_hosts(view(**fields))] == ids


def test_a_lost_host_carries_what_the_rules_need() -> None:
    host = replace(samples.HOST, spec=HostSpec(confirmed_off="inc-1", confirmed_revision=7))
    record = takeover(TakeoverPhase.WAITING)
    fields = {"hosts": {"host-1": Entry("h", host, 3)}, "takeovers": {"host-1": Entry("t", record, 9)}}
    assert lost_hosts(view(**fields)) == (replace(LOST, confirmed_off=True, record=record, record_revision=9),)


@pytest.mark.parametrize(
    ("incarnation", "revision", "confirmed"), [("inc-1", 7, True), ("inc-1", 6, False), ("inc-0", 7, False)]
)
def test_a_host_that_registered_since_is_not_confirmed_off(incarnation: str, revision: int, confirmed: bool) -> None:
    host = replace(samples.HOST, spec=HostSpec(confirmed_off=incarnation, confirmed_revision=revision))
    made = view(hosts={"host-1": Entry("h", host, 3)})
    assert (made.is_confirmed_off("host-1"), lost_hosts(made)[0].confirmed_off) == (confirmed, confirmed)


def test_nobody_confirms_a_host_that_is_not_known() -> None:
    assert not view().is_confirmed_off("host-1")
    assert not view(hosts={}).is_confirmed_off("host-1")
    assert not view(registered={}).is_confirmed_off("host-1")


def test_the_way_of_a_takeover() -> None:
    first = next_step(LOST, None, None, now_s=100.0)
    assert first.step is Step.READ
    quiet = hear(None, answer(100.0), LOST)
    waiting = next_step(LOST, quiet, None, now_s=100.0)
    assert (waiting.step, waiting.at_s) == (Step.WAIT, 100.0 + POLL_S)
    assert next_step(LOST, quiet, None, now_s=100.0 + POLL_S).step is Step.READ
    quiet = hear(quiet, answer(103.3), LOST)
    waiting = next_step(LOST, quiet, None, now_s=103.3)
    assert (waiting.step, waiting.at_s) == (Step.WAIT, 100.0 + W)
    assert next_step(LOST, quiet, None, now_s=100.0 + W).step is Step.MARK
    quiet = hear(quiet, answer(100.0 + W, fenced=True), LOST)
    assert next_step(LOST, quiet, None, now_s=100.0 + W).step is Step.FREE


def test_a_mark_written_in_another_term_needs_a_whole_w_more() -> None:
    quiet = hear(hear(None, answer(100.0), LOST), answer(103.5, term=2, fenced=True), LOST)
    assert quiet == Quiet(103.5, 2, 7, 103.5)
    assert next_step(MARKED, quiet, None, now_s=103.6).step is Step.WAIT
    assert next_step(MARKED, quiet, None, now_s=107.0).step is Step.READ
    quiet = hear(quiet, answer(107.0, term=2, fenced=True), MARKED)
    assert next_step(MARKED, quiet, None, now_s=107.0).step is Step.FREE


def test_a_fresh_scheduler_that_finds_a_mark_waits_a_whole_w_first() -> None:
    assert next_step(MARKED, None, None, now_s=100.0).step is Step.READ
    quiet = hear(None, answer(100.0, fenced=True), MARKED)
    assert quiet is not None
    assert not quiet.over
    assert hear(quiet, answer(103.49, fenced=True), MARKED) == replace(quiet, heard_at_s=103.49)
    late = hear(quiet, answer(103.5, fenced=True), MARKED)
    assert late is not None
    assert late.over


def test_w_runs_from_the_answer_to_the_next_question() -> None:
    quiet = hear(None, answer(100.0, answered_at_s=102.0), LOST)
    assert next_step(LOST, quiet, None, now_s=105.4).step is not Step.MARK
    early = hear(quiet, answer(105.4, answered_at_s=109.0, fenced=True), LOST)
    assert early is not None
    assert not early.over


@pytest.mark.parametrize("fields", [{"registered_revision": 8}, {"alive": True}, {"registered_revision": 0}])
def test_a_host_that_registered_again_is_not_taken_over(fields: dict[str, object]) -> None:
    assert hear(hear(None, answer(100.0), LOST), answer(101.0, **fields), LOST) is None


def test_the_quiet_of_an_earlier_registration_counts_for_nothing() -> None:
    quiet = hear(None, answer(100.0), LOST)
    again = replace(LOST, registered_revision=12)
    assert next_step(again, quiet, None, now_s=200.0).step is Step.READ


def test_the_brake() -> None:
    assert [brake_limit(hosts, 10) for hosts in (0, 1, 4, 10, 19, 20, 100)] == [1, 1, 1, 1, 1, 2, 10]
    earlier = NOW - datetime.timedelta(seconds=100)
    lost_at = {"host-1": NOW, "host-2": earlier}
    hold = hold_of(LOST, lost_at, limit=1)
    assert hold is not None
    assert "2 hosts were lost within 10 minutes, more than 1" in hold.reason
    assert hold.until == format_time(earlier + datetime.timedelta(seconds=BRAKE_WINDOW_S))
    assert hold_of(LOST, lost_at, limit=2) is None
    assert hold_of(replace(LOST, confirmed_off=True), lost_at, limit=1) is None
    assert hold_of(MARKED, lost_at, limit=1) is None, "what was begun is finished"
    step = next_step(LOST, None, hold, now_s=1.0)
    assert (step.step, step.phase, step.until) == (Step.HOLD, TakeoverPhase.HELD, hold.until)


def test_a_guard_that_never_fences_is_taken_over_only_on_somebodys_word() -> None:
    never = replace(LOST, fence_s=0.0)
    hold = hold_of(never, {}, limit=10)
    assert hold is not None
    assert (hold.until, "never fences" in hold.reason) == ("", True)
    assert hold_of(replace(never, confirmed_off=True), {}, limit=10) is None


def test_losses_are_what_is_recorded_and_what_is_seen() -> None:
    def at(seconds: float) -> str:
        return format_time(NOW - datetime.timedelta(seconds=seconds))

    takeovers = {
        "host-2": Entry("t", takeover(lost_at=at(599)), 1),
        "host-3": Entry("t", takeover(lost_at=at(600)), 1),
        "host-4": Entry("t", takeover(lost_at="nonsense"), 1),
        "host-5": Entry("t", takeover(lost_at=at(-50)), 1),
    }
    found = losses(view(takeovers=takeovers), [LOST], NOW)
    assert sorted(found) == ["host-1", "host-2", "host-4", "host-5"], "a clock that was stepped back frees nobody"


def test_the_record_says_something_new_only_if_there_is() -> None:
    quiet = hear(None, answer(100.0), LOST)
    step = next_step(LOST, quiet, None, now_s=100.0)
    record = record_of(LOST, step, quiet, now=NOW, now_s=100.0)
    assert (record.phase, record.until) == (TakeoverPhase.WAITING, format_time(NOW + datetime.timedelta(seconds=W)))
    later = NOW + datetime.timedelta(seconds=1)
    known = replace(LOST, record=record)
    again = next_step(known, quiet, None, now_s=100.2)
    assert record_of(known, again, quiet, now=later, now_s=100.2) is record
    held = next_step(known, quiet, Hold("too many"), now_s=101.0)
    assert record_of(known, held, quiet, now=later, now_s=101.0).lost_at == record.lost_at
    assert done_record(known, 3, now=later).lost_at == record.lost_at


def test_a_host_that_is_back_and_records_that_are_old() -> None:
    back = {"alive": {"host-1": Entry("alive", SIGN, 8)}}
    waiting = view(takeovers={"host-1": Entry("t", takeover(TakeoverPhase.WAITING), 9)}, **back)
    assert [entry.value.host_id for entry in returned_hosts(waiting)] == ["host-1"]
    done = view(takeovers={"host-1": Entry("t", takeover(lost_at=format_time(NOW)), 9)}, **back)
    assert returned_hosts(done) == ()
    assert old_records(done, NOW + datetime.timedelta(seconds=599)) == ()
    assert len(old_records(done, NOW + datetime.timedelta(seconds=600))) == 1


def test_pools_with_a_verb_are_fenced_and_others_not() -> None:
    def report(number: int, pool: SeenPool) -> Entry[object]:
        return Entry("s", samples.report(number, pool=pool), 1)

    seen = {
        "host-1": report(1, SeenPool("nbd", Fence.VERB)),
        "host-2": report(2, SeenPool("dir", Fence.LOCK)),
        "host-3": report(3, SeenPool("old", Fence.VERB)),
    }
    assert pools_to_fence(view(seen_hosts=seen), "host-1", ["old", "dir", "unknown"]) == ("nbd", "old")


@pytest.mark.parametrize("reporter", [1, 2])
def test_a_pool_is_fenced_although_nobody_proves_it_at_the_moment(reporter: int) -> None:
    seen = {f"host-{reporter}": Entry("seen", samples.report(reporter, pool=SeenPool("nbd", has_verb=True)), 5)}
    assert pools_to_fence(view(seen_hosts=seen), "host-1", ["nbd"]) == ("nbd",)


def test_a_pool_of_which_no_report_tells_is_unknown() -> None:
    seen = {"host-2": Entry("seen", samples.report(2, pool=SeenPool("dir", Fence.LOCK)), 5)}
    assert unknown_pools(view(seen_hosts=seen), ["dir", "", "old", "odd", "old"]) == ("odd", "old")


@given(
    st.lists(
        st.tuples(st.floats(0.0, 3.0), st.floats(0.0, 2.0), st.integers(1, 3), st.booleans()), min_size=1, max_size=40
    ),
    st.floats(2.0, 60.0),
    st.floats(0.0, 2.0),
)
def test_nothing_is_freed_before_w_in_one_term(
    answers: list[tuple[float, float, int, bool]], fence_s: float, kill_s: float
) -> None:
    """However answers come: at FREE, one term's answers span W from an arrival to a question that saw the mark."""
    host = replace(LOST, fence_s=fence_s, kill_s=kill_s)
    now_s = 50.0
    quiet: Quiet | None = None
    heard: list[Answer] = []
    fenced = False
    for pause_s, duration_s, term, marks in answers:
        now_s += pause_s
        sent_at_s, now_s = now_s, now_s + duration_s
        step = next_step(host, quiet, None, now_s=sent_at_s)
        if step.step is Step.FREE:
            break
        fenced = fenced or (marks and step.step is Step.MARK)
        heard.append(answer(sent_at_s, answered_at_s=now_s, term=term, fenced=fenced))
        quiet = hear(quiet, heard[-1], host)
        if quiet and quiet.over:
            _, run = next(itertools.groupby(reversed(heard), key=lambda one: one.term))
            span = list(run)
            assert span[0].sent_at_s >= span[-1].answered_at_s + fence_s + kill_s + 0.25
            assert span[0].fenced
