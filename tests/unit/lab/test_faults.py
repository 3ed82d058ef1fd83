"""Faults as text: what people type, what the kernel gets, what is written down."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ucloud.errors import InvalidInput
from ucloud.lab import cuts, guest, scenario
from ucloud.lab.cuts import Way
from ucloud.lab.durations import parse_duration_s, parse_offset_s, parse_percent, parse_while_s
from ucloud.lab.fault_commands import describe
from ucloud.lab.layout import LabLayout
from ucloud.lab.ledger import Ledger
from ucloud.lab.nodes import PROGRAMS, NodeKind
from ucloud.local.commands import build_parser
from ucloud.local.processes import parse_programs


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("10s", 10), ("-1h", -3600), ("2.5", 2.5), ("+1m", 60), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_offset_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "1w", "one", "1 s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        parse_duration_s(text)


def test_only_a_clock_goes_backwards_and_none_leaves_the_calendar() -> None:
    assert parse_duration_s("0") == 0
    for parse, text in ((parse_duration_s, "-5s"), (parse_while_s, "0"), (parse_offset_s, "99999999d")):
        with pytest.raises(argparse.ArgumentTypeError):
            parse(text)


def test_shares() -> None:
    assert parse_percent("30%") == parse_percent("30") == 30
    with pytest.raises(argparse.ArgumentTypeError):
        parse_percent("130%")


def test_a_silent_cut_drops_what_comes_from_its_peers_and_goes_to_them() -> None:
    text = cuts.render_cut("f1", ["fd00::1", "fd00::2"], way=Way.BOTH, reject=False)
    assert 'iifname "underlay" ip6 saddr { fd00::1, fd00::2 } drop' in text
    assert 'oifname "underlay" ip6 daddr { fd00::1, fd00::2 } drop' in text
    assert "reject" not in text


def test_a_cut_of_one_way_leaves_the_other() -> None:
    assert "output" not in cuts.render_cut("f1", [], way=Way.IN, reject=False)
    assert "input" not in cuts.render_cut("f1", [], way=Way.OUT, reject=False)


def test_refusals_get_out_before_they_are_refused() -> None:
    text = cuts.render_cut("f1", [], way=Way.BOTH, reject=True)
    output = text[text.index("chain output") :]
    assert output.index("rst accept") < output.index("reject with tcp reset")
    assert "drop" not in text


def test_a_blip_ends_by_itself() -> None:
    text = cuts.render_blip(["h1", "h2"], ["e1"], for_s=2.0)
    assert 'elements = { "h1" timeout 2000ms, "h2" timeout 2000ms }' in text


COMMANDS = [
    "power-off h2",
    "power-on h2",
    "cut h2",
    "cut h2 --from etcd --reject",
    "cut h2 --one-way",
    "cut h2 --one-way out --for 3s",
    "slow h2 --delay 200ms --loss 30%",
    "freeze h2 10s",
    "freeze h2",
    "kill-agent h2",
    "kill-guard h2",
    "freeze-guard h2 --for 4s",
    "stop-etcd 1 2",
    "stop-etcd all",
    "kill-etcd-leader",
    "freeze-etcd-leader --for 2s",
    "blip-all 2s",
    "restart-etcd-slowly --apart 5s",
    "etcd-nospace",
    "clock-step h2 -1h",
    "lock-linger h2 30s",
    "storage-hang 5s",
    "late-write 5s",
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_fault_is_a_command_and_a_step_of_a_scenario(words: str) -> None:
    from ucloud.lab.commands import add_lab

    step = scenario.parse_fault(words.split())
    args = build_parser((add_lab,)).parse_args(["lab", "fault", *words.split(), "--directory", "/labs/one"])
    assert args.directory == Path("/labs/one")
    for name, value in vars(step).items():
        if name != "fault_run":
            assert getattr(args, name) == value


def test_a_fault_is_written_down_until_it_is_undone(tmp_path: Path) -> None:
    layout = LabLayout(tmp_path)
    layout.run.mkdir()
    ledger = Ledger(layout)
    first = ledger.add("cut", "h1", **{"from": ["etcd"]})
    second = ledger.note(ledger.add("freeze", "h2", for_s=10.0), pids=[(1, 2)])
    assert [fault.id for fault in ledger.all()] == [first.id, second.id]
    assert ledger.find(second.id) == second or ledger.all()[1].facts == {"pids": [[1, 2]]}
    assert second.until_s > 0 == first.until_s
    assert describe(first) == "cut h1 (from ['etcd'])"
    assert ledger.remove(first.id)
    assert not ledger.remove(first.id)


def test_a_scenario_is_read_whole_before_anything_happens() -> None:
    text = "create 2 vms failover=restart\n# a word\nat 5s fault power-off h2  # dies\nwait vm vm1 running 30s on h1\n"
    steps = scenario.parse_scenario(text, origin="file")
    assert [step.at_s for step in steps] == [None, 5.0, None]
    assert steps[1].text == "fault power-off h2"
    assert steps[1].line == 3


_WRONG_LINES = (
    *("dance", "at soon heal", "fault trip h2", "fault cut", "at", "at 5s", "say 'half", "create", "create x vms"),
    *("create -1 vms", "create 1 vms big", "create 1 vms memory=much", "wait vm web1", "wait vm web1 running soon"),
    *("wait vm web1 running 1s on", "wait vm web1 running 1s at h1", "wait leader", "wait all 1s", "expect vm web1"),
    *("expect", "expect vm web1 running on", "expect host h1 ready", "sleep", "sleep -1s", "exec", "exec client"),
    *("heal h1", "check it", "fault blip-all 0", "fault clock-step h1 99999999d"),
)


@pytest.mark.parametrize("line", _WRONG_LINES)
def test_a_line_that_makes_no_sense_is_named(line: str) -> None:
    with pytest.raises(InvalidInput, match="file, line 2"):
        scenario.parse_scenario(f"heal\n{line}\n", origin="file")


_RIGHT_LINES = (
    *("create 2 vms", "create 1 vms memory=64M prefix=web", "wait vm web1 running 30s on h2", "wait leader 10s"),
    *("wait host h2 ready 30s", "wait all running 60s", "expect vm web1 running on h2", "sleep 5s", "heal", "check"),
    *("exec client ucloud vm list", "say half of it is done", "at 5s fault cut h2 --from etcd"),
    "fault clock-step h1 -1h",
)


@pytest.mark.parametrize("line", _RIGHT_LINES)
def test_all_steps_are_read(line: str) -> None:
    assert len(scenario.parse_scenario(line, origin="file")) == 1


def test_a_scenario_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match="no text"):
        scenario.read_scenario(tmp_path / "file")


def test_the_guest_is_a_boot_sector() -> None:
    disk = guest.halting_disk()
    assert len(disk) == guest.DISK_BYTES
    assert disk[510:512] == b"\x55\xaa"


def test_every_program_of_a_node_is_one_that_can_be_supervised() -> None:
    for kind in NodeKind:
        assert (
            sorted(one.name for one in parse_programs(",".join(PROGRAMS[kind]))) == sorted(PROGRAMS[kind])
            or not (PROGRAMS[kind])
        )
    with pytest.raises(InvalidInput):
        parse_programs("etcd,dance")
