"""``ucloud lab fault …`` and ``heal``: one small command per fault. Scenarios are read by the same parser."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ucloud.cli.parser import Verbs
from ucloud.lab.cuts import Way
from ucloud.lab.durations import NEGATIVE, parse_duration_s, parse_offset_s, parse_percent, parse_while_s
from ucloud.lab.faults import Faults
from ucloud.lab.ledger import Fault

Say = Callable[[str], None]
Run = Callable[[Faults, argparse.Namespace, Say], object]
Add = Callable[[Verbs, str, str, Run], argparse.ArgumentParser]


def add_faults(verbs: Verbs, add: Add) -> None:
    """Add all faults; ``add`` makes the parser of one whose function gets the faults, the arguments and ``say``."""
    _add_power(verbs, add)
    _add_cables(verbs, add)
    _add_processes(verbs, add)
    _add_etcd(verbs, add)
    _add_others(verbs, add)


def describe(fault: Fault) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in fault.facts.items() if name not in ("pids", "killed"))
    return " ".join(word for word in (fault.kind, fault.node, f"({facts})" if facts else "") if word)


def _add_power(verbs: Verbs, add: Add) -> None:
    off = add(verbs, "power-off", "all processes of a node die at once", lambda f, a, _: f.power_off(a.node))
    _node(off)
    _node(add(verbs, "power-on", "start a node again", lambda f, a, _: f.power_on(a.node)))


def _add_cables(verbs: Verbs, add: Add) -> None:
    def cut(faults: Faults, args: argparse.Namespace, _: Say) -> Fault:
        way = Way(args.one_way) if args.one_way else Way.BOTH
        return faults.cut(args.node, peers=args.peers, way=way, reject=args.reject, for_s=args.for_s)

    parser = add(verbs, "cut", "pull a node's cable, or cut it from some others", cut)
    _node(parser)
    parser.add_argument(
        "--from", dest="peers", action="append", default=[], metavar="NODE|KIND", help="etcd, api, host or a name"
    )
    parser.add_argument("--reject", action="store_true", help="answer with refusals (RST, ICMP) instead of silence")
    parser.add_argument(
        "--one-way", nargs="?", const="in", choices=("in", "out"), help="lose only what it would receive, or sends"
    )
    _for(parser)

    def slow(faults: Faults, args: argparse.Namespace, _: Say) -> Fault:
        return faults.slow(args.node, delay_s=args.delay, loss=args.loss / 100, for_s=args.for_s)

    parser = add(verbs, "slow", "delay and lose a node's frames, in both directions", slow)
    _node(parser)
    parser.add_argument("--delay", type=parse_duration_s, default=0.0, metavar="TIME", help="such as 200ms")
    parser.add_argument("--loss", type=parse_percent, default=0.0, metavar="SHARE", help="such as 30%%")
    _for(parser)
    parser = add(verbs, "blip-all", "every host loses etcd for a while", lambda f, a, _: f.blip_all(for_s=a.for_s))
    parser.add_argument("for_s", type=parse_while_s, metavar="TIME", help="such as 2s")


def _add_processes(verbs: Verbs, add: Add) -> None:
    parser = add(verbs, "freeze", "SIGSTOP all processes of a node", lambda f, a, _: f.freeze(a.node, for_s=a.for_s))
    _node(parser)
    parser.add_argument(
        "for_s", type=parse_duration_s, nargs="?", default=0.0, metavar="TIME", help="until it goes on by itself"
    )
    for program in ("agent", "guard", "scheduler", "api"):

        def kill(faults: Faults, args: argparse.Namespace, _: Say, program: str = program) -> None:
            faults.kill(args.node, program)

        _node(add(verbs, f"kill-{program}", f"SIGKILL a node's {program}", kill))

        def freeze(faults: Faults, args: argparse.Namespace, _: Say, program: str = program) -> Fault:
            return faults.freeze_program(args.node, program, for_s=args.for_s)

        parser = add(verbs, f"freeze-{program}", f"SIGSTOP a node's {program}", freeze)
        _node(parser)
        _for(parser)


def _add_etcd(verbs: Verbs, add: Add) -> None:
    def stop(faults: Faults, args: argparse.Namespace, _: Say) -> object:
        return faults.etcd.stop([] if "all" in args.members else args.members)

    parser = add(verbs, "stop-etcd", "stop some or all members of etcd", stop)
    parser.add_argument("members", nargs="+", metavar="N|all", help="numbers, names, or all")

    def kill(faults: Faults, _: argparse.Namespace, say: Say) -> None:
        say(f"killed {faults.etcd.kill_leader()}")

    add(verbs, "kill-etcd-leader", "SIGKILL etcd's leading member", kill)

    def freeze(faults: Faults, args: argparse.Namespace, _: Say) -> Fault:
        return faults.etcd.freeze_leader(for_s=args.for_s)

    _for(add(verbs, "freeze-etcd-leader", "SIGSTOP etcd's leading member", freeze))

    def slowly(faults: Faults, args: argparse.Namespace, say: Say) -> None:
        faults.etcd.restart_slowly(apart_s=args.apart, say=say)

    parser = add(verbs, "restart-etcd-slowly", "stop all members, then start one after the other", slowly)
    parser.add_argument("--apart", type=parse_duration_s, default=60.0, metavar="TIME", help="between two (60s)")
    add(verbs, "etcd-nospace", "let etcd be out of space", lambda f, a, _: f.etcd.nospace())


def _add_others(verbs: Verbs, add: Add) -> None:
    parser = add(verbs, "clock-step", "put a node's wall clock wrong", lambda f, a, _: f.clock_step(a.node, a.offset))
    _node(parser)
    parser.add_argument("offset", type=parse_offset_s, metavar="TIME", help="such as -1h")
    parser._negative_number_matcher = NEGATIVE  # "-1h" is no option
    parser = add(
        verbs, "lock-linger", "storage keeps the locks of its VMs", lambda f, a, _: f.lock_linger(a.node, for_s=a.for_s)
    )
    _node(parser)
    parser.add_argument("for_s", type=parse_while_s, metavar="TIME", help="such as 2s")
    summaries = {"storage-hang": "a fenced pool's storage hangs for so long", "late-write": "its writes come so late"}
    for name, summary in summaries.items():

        def spoil(faults: Faults, args: argparse.Namespace, _: Say, name: str = name) -> Fault:
            return faults.spoil_storage(name.replace("-", "_"), for_s=args.for_s)

        add(verbs, name, summary, spoil).add_argument("for_s", type=parse_while_s, metavar="TIME", help="such as 2s")


def _node(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE", help="such as h2")


def _for(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--for", dest="for_s", type=parse_duration_s, default=0.0, metavar="TIME", help="until it heals by itself"
    )
