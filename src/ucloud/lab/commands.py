"""``ucloud lab``: the commands."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ucloud.cli.parser import Parser, Verbs, add_shared_options
from ucloud.errors import InvalidInput
from ucloud.lab import inner, scenario, status
from ucloud.lab.driver import Lab
from ucloud.lab.fault_commands import Run, add_faults, describe
from ucloud.lab.layout import DEFAULT_DIRECTORY
from ucloud.lab.nodes import PoolKind
from ucloud.system.run import replace_process


def add_lab(subparsers: Verbs) -> None:
    summary = "a whole cloud on this machine in network namespaces, for trying and testing"
    parser = subparsers.add_parser("lab", help=summary, description=summary)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_up(verbs)
    _add_down(verbs)
    add(verbs, "status", _status, "show the nodes, their processes, and what is wrong")
    _add_exec(verbs)
    _add_fault(verbs)
    add(verbs, "heal", _heal, "undo all faults and switch on what is off")
    _add_scenario(verbs)
    add(verbs, "check", _check, "prove from the history that no VM ran twice and nothing was lost")
    inner.add_inner(verbs, add)


def add(verbs: Verbs, name: str, command: Any, summary: str) -> Parser:
    parser: Parser = verbs.add_parser(name, help=summary, description=summary)
    parser.add_argument(
        "--directory",
        type=lambda text: Path(text).absolute(),
        default=DEFAULT_DIRECTORY,
        help=f"where the lab keeps everything (default: {DEFAULT_DIRECTORY})",
    )
    parser.set_defaults(local_command=command)
    add_shared_options(parser)
    return parser


def lab_of(args: argparse.Namespace) -> Lab:
    return Lab(args.directory, say=say)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _add_up(verbs: Verbs) -> None:
    parser = add(verbs, "up", _up, "make and start a lab, and wait until it is ready")
    parser.add_argument("--hosts", type=int, default=4, metavar="N", help="hosts that run VMs (4)")
    parser.add_argument("--etcd", type=int, default=3, metavar="N", help="etcd members (3)")
    parser.add_argument("--apis", type=int, default=2, metavar="N", help="nodes with API, stream and scheduler (2)")
    parser.add_argument("--fence-s", type=float, default=3.0, metavar="SECONDS", help="F of docs/failover.md (3)")
    parser.add_argument(
        "--pool", choices=[kind.value for kind in PoolKind], default="directory", help="where disks are (directory)"
    )
    parser.add_argument(
        "--failover-share", type=int, default=100, metavar="PERCENT", help="of hosts that may be lost unasked (100)"
    )
    parser.add_argument("--name", default="", help="how its namespaces begin (default: lab, or made of the directory)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS", help="until it must be ready (120)")


def _up(args: argparse.Namespace) -> int:
    lab_of(args).up(
        hosts=args.hosts,
        etcd=args.etcd,
        apis=args.apis,
        fence_s=args.fence_s,
        pool=PoolKind(args.pool),
        failover_share_percent=args.failover_share,
        name=args.name,
        timeout_s=args.timeout,
    )
    return 0


def _add_down(verbs: Verbs) -> None:
    parser = add(verbs, "down", _down, "end the lab and remove all of it")
    parser.add_argument("--keep", action="store_true", help="leave its history and its logs")


def _down(args: argparse.Namespace) -> int:
    lab_of(args).down(keep=args.keep)
    return 0


def _status(args: argparse.Namespace) -> int:
    report = status.examine(lab_of(args))
    print(json.dumps(report.plain(), indent=2) if args.output == "json" else status.render(report))
    return 0 if report.healthy else 1


def _add_exec(verbs: Verbs) -> None:
    parser = add(verbs, "exec", _exec, "run a command on a node; on 'client' ucloud speaks to the lab's cloud")
    parser.add_argument("node", metavar="NODE")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    parser.set_defaults(takes_tail=True)


def _exec(args: argparse.Namespace) -> int:
    lab = lab_of(args)
    words = [*args.words, "--", *args.tail] if args.words and args.tail else args.words or args.tail
    if not words:
        raise InvalidInput("failed to run a command: there is none", hint="ucloud lab exec h1 ip address")
    # The thread that becomes another program takes its namespace along.
    lab.inside(args.node, lambda: replace_process(lab.command_inside(words)))
    return 1


def _add_fault(verbs: Verbs) -> None:
    summary = "let something go wrong"
    faults = verbs.add_parser("fault", help=summary, description=summary)

    def add_one(kinds: Verbs, name: str, about: str, run: Run) -> Parser:
        parser = add(kinds, name, _fault, about)
        parser.set_defaults(fault_run=run)
        return parser

    add_faults(faults.add_subparsers(dest="fault", metavar="FAULT", required=True), add_one)


def _fault(args: argparse.Namespace) -> int:
    made = args.fault_run(lab_of(args).faults, args, say)
    for fault in made if isinstance(made, list) else [made]:
        if fault is not None:
            say(describe(fault))
    return 0


def _heal(args: argparse.Namespace) -> int:
    for fault in lab_of(args).faults.heal():
        say(f"undone: {describe(fault)}")
    return 0


def _add_scenario(verbs: Verbs) -> None:
    parser = add(verbs, "scenario", _scenario, "run the steps of a file")
    parser.add_argument("file", type=Path)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = scenario.__doc__


def _scenario(args: argparse.Namespace) -> int:
    steps = scenario.read_scenario(args.file)
    scenario.Runner(lab_of(args), lambda text: print(text, flush=True)).run(steps)
    return 0


def _check(args: argparse.Namespace) -> int:
    violations = lab_of(args).check()
    if args.output == "json":
        plain = [{"kind": one.kind.value, "text": one.text, "at_s": one.at_s} for one in violations]
        print(json.dumps(plain, indent=2))
    else:
        print("".join(f"{one}\n" for one in violations) or "nothing is wrong", flush=True)
    return 1 if violations else 0
