"""The command line as a whole: the client's commands and those that work on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from ucloud import __version__
from ucloud.cli import commands as client_commands
from ucloud.cli.failures import run_to_exit_code
from ucloud.cli.parser import Parser, Verbs, add_shared_options
from ucloud.cli.tables import render_table
from ucloud.config.sections import DEFAULT_STATE_DIRECTORY
from ucloud.local import demo, doctor, lifecycle, status
from ucloud.local.image_build import build_tiny
from ucloud.local.layout import Layout
from ucloud.local.processes import PROGRAMS
from ucloud.system import files

LocalCommand = Callable[[argparse.Namespace], int]
AddCommands = Callable[[Verbs], None]
"""Adds commands to the parser's own, each with its ``local_command``."""

_EXAMPLES = """examples:
  ucloud up                              start a cloud on this machine
  ucloud image build tiny --import       a small guest image from Debian packages
  ucloud network create main
  ucloud vm create web1 --image tiny --network main --key mine --wait
  ucloud vm ssh web1
"""


def run_command(words: Sequence[str], *, more: Sequence[AddCommands] = ()) -> int:
    """Parse and run one command that is no process of the cloud; the exit code. ``more`` add commands of theirs."""
    parser = build_parser(more)
    args = parser.parse_args(words)
    if client_commands.is_client_command(args):
        return client_commands.run(args)
    return run_to_exit_code(lambda: args.local_command(args))


def build_parser(more: Sequence[AddCommands] = ()) -> Parser:
    parser = Parser(
        prog="ucloud",
        description="A cloud of virtual machines that one person can understand.",
        epilog=_EXAMPLES + "\nprocesses, started by 'ucloud up': " + ", ".join(program.name for program in PROGRAMS),
    )
    parser.add_argument("--version", action="version", version=f"ucloud {__version__}")
    add_shared_options(parser, at_root=True)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    verbs = client_commands.add_commands(subparsers)
    _add_image_build(verbs["image"])
    up = _add(subparsers, "up", _up, "start a cloud on this machine")
    up.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="until it must be healthy (60)")
    down = _add(subparsers, "down", _down, "stop the cloud on this machine, keeping its state")
    down.add_argument("--timeout", type=float, default=30.0, metavar="SECONDS", help="for guests to power off (30)")
    _add(subparsers, "status", _status, "show the processes and the health of the cloud on this machine")
    _add(subparsers, "doctor", _doctor, "show what this machine has and lacks to run a cloud")
    _add(subparsers, "demo", _demo, "the whole path once: cloud, image, network, VM, login")
    for add_commands in more:
        add_commands(subparsers)
    return parser


def _add(subparsers: Verbs, name: str, command: LocalCommand, summary: str) -> Parser:
    parser: Parser = subparsers.add_parser(name, help=summary, description=summary)
    parser.add_argument(
        "--directory",
        type=lambda text: Path(text).absolute(),
        default=DEFAULT_STATE_DIRECTORY,
        help=f"where the cloud keeps everything (default: {DEFAULT_STATE_DIRECTORY})",
    )
    parser.set_defaults(local_command=command)
    add_shared_options(parser)
    return parser


def _add_image_build(verbs: Verbs) -> None:
    summary = "make a small guest image from Debian packages, on this machine"
    parser: Parser = verbs.add_parser("build", help=summary, description=summary)
    parser.add_argument("kind", choices=("tiny",), help="which image")
    parser.add_argument("--file", type=Path, default=Path("tiny.qcow2"), help="where to write it (tiny.qcow2)")
    parser.add_argument("--import", dest="import_as", nargs="?", const="tiny", metavar="NAME", help="and upload it")
    parser.add_argument("--directory", type=Path, default=DEFAULT_STATE_DIRECTORY, help=argparse.SUPPRESS)
    parser.set_defaults(local_command=_image_build)
    add_shared_options(parser)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _up(args: argparse.Namespace) -> int:
    lifecycle.up(args.directory, timeout_s=args.timeout, say=say)
    return 0


def _down(args: argparse.Namespace) -> int:
    lifecycle.down(args.directory, timeout_s=args.timeout, say=say)
    return 0


def _demo(args: argparse.Namespace) -> int:
    print(demo.render_result(demo.demo(args.directory, say=say)), flush=True)
    return 0


def _doctor(args: argparse.Namespace) -> int:
    findings = doctor.examine(args.directory)
    if args.output == "json":
        plain = [
            {"check": one.check, "grade": one.grade, "detail": one.detail, "advice": one.advice} for one in findings
        ]
        print(json.dumps(plain, indent=2))
    else:
        rows = [(one.check, one.grade.value, one.detail, one.advice) for one in findings]
        print(render_table(("CHECK", "GRADE", "DETAIL", "ADVICE"), rows), end="")
    return 1 if any(one.grade is doctor.Grade.FAILURE for one in findings) else 0


def _status(args: argparse.Namespace) -> int:
    report = status.examine(Layout(args.directory))
    print(json.dumps(report.plain(), indent=2) if args.output == "json" else status.render(report))
    return 0 if report.healthy else 1


def _image_build(args: argparse.Namespace) -> int:
    layout = Layout(args.directory)
    work = files.ensure_directory(layout.cache / "tiny", mode=0o755)
    output = args.file.absolute()
    built = build_tiny(output, work_directory=work, progress=say)
    if args.import_as:
        words = ["image", "import", str(output), "--name", args.import_as, "--sha256", built.sha256]
        return run_command([*words, "--output", args.output])
    print(built.path)
    return 0
