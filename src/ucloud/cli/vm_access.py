"""``ucloud vm ssh | log | console``: the ways into a VM."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ucloud.cli import nouns
from ucloud.cli.parser import Verbs, add_verb
from ucloud.cli.plain import PlainText
from ucloud.cli.session import Session
from ucloud.cli.ssh import SshTarget, pick_address, render_ssh, wait_for_ssh
from ucloud.cli.values import parse_count, parse_seconds
from ucloud.client import Object
from ucloud.config.environment import personal_directory
from ucloud.errors import NotFound
from ucloud.system.files import ensure_directory
from ucloud.system.run import replace_process

_LOG_BYTES = 65536
_FOLLOW_S = 1.0
_SSH_PORT = 22


def add_access(verbs: Verbs) -> None:
    _add_ssh(verbs)
    _add_log(verbs)
    _add_console(verbs)


def _add_ssh(verbs: Verbs) -> None:
    examples = [
        "ucloud vm ssh web1",
        "ucloud vm ssh web1 --wait -- uptime",
        "ucloud vm ssh web1 --identity ~/.ssh/work",
    ]
    parser = add_verb(verbs, "ssh", "Log in to a VM; what follows -- is run there.", _ssh, examples=examples)
    parser.set_defaults(takes_tail=True)
    nouns.add_reference(parser, "vm")
    parser.add_argument("--user", help="the account (default: what the image says)")
    parser.add_argument("--identity", type=Path, metavar="FILE", help="the private key to use")
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=4, default=0, help="use its IPv4 address")
    family.add_argument("-6", dest="family", action="store_const", const=6, help="use its IPv6 address")
    nouns.add_wait(parser, "until its ssh answers")


def _ssh(session: Session, args: argparse.Namespace) -> int:
    vm = nouns.find(session, "vm", args)
    address = pick_address(vm, family=args.family)
    if args.wait:
        with nouns.watch(session, f"vm {vm['name']}") as progress:
            session.client.wait_for(vm["id"], ("running",), args.timeout, progress.word)
            progress.word("running", f"waits for ssh at {address}")
            wait_for_ssh(address, _SSH_PORT, args.timeout)
    known_hosts = ensure_directory(personal_directory()) / "known_hosts"
    user = args.user or _image_user(session, vm)
    target = SshTarget(address, user, vm["id"], known_hosts, args.identity)
    session.close()
    replace_process(render_ssh(target, args.tail))


def _image_user(session: Session, vm: Object) -> str:
    try:
        image = session.client.get("image", vm["spec"]["image_id"])
    except NotFound:
        return "root"
    return str(image["spec"].get("user") or "root")


def _add_log(verbs: Verbs) -> None:
    examples = ["ucloud vm log web1", "ucloud vm log web1 --follow", "ucloud vm log web1 --bytes 1000"]
    parser = add_verb(verbs, "log", "Show what the VM wrote to its serial port.", _log, examples=examples)
    nouns.add_reference(parser, "vm")
    parser.add_argument("--follow", action="store_true", help="go on with what it writes, until interrupted")
    parser.add_argument("--raw", action="store_true", help="as it is, also on a terminal, which it can then steer")
    parser.add_argument("--bytes", type=parse_count, default=_LOG_BYTES, metavar="N", help="the last N bytes (65536)")


def _log(session: Session, args: argparse.Namespace) -> int:
    vm_id = nouns.find(session, "vm", args)["id"]
    limit_bytes = max(args.bytes, _LOG_BYTES) if args.follow else args.bytes
    plain = PlainText() if session.out.isatty() and not args.raw else None
    seen = session.client.read_log(vm_id, limit_bytes=limit_bytes)
    _write_log(session, seen[-args.bytes :], plain)
    while args.follow:
        time.sleep(_FOLLOW_S)
        now = session.client.read_log(vm_id, limit_bytes=limit_bytes)
        _write_log(session, now[measure_overlap(seen, now) :], plain)
        seen = now
    return 0


def measure_overlap(before: bytes, now: bytes) -> int:
    """How much of the start of ``now`` is the end of ``before``: two ends of one growing log. Pure.

    Knuth, Morris and Pratt: ``shorter[n]`` is the next shorter overlap once ``n`` bytes match.
    """
    shorter = [0, 0]
    matched = 0
    for byte in now[1:]:
        while matched and now[matched] != byte:
            matched = shorter[matched]
        matched += now[matched] == byte
        shorter.append(matched)
    matched = 0
    for byte in before[-len(now) :] if now else b"":
        while matched and (matched == len(now) or now[matched] != byte):
            matched = shorter[matched]
        matched += now[matched] == byte
    return matched


def _write_log(session: Session, data: bytes, plain: PlainText | None) -> None:
    session.out.flush()
    encoding = session.out.encoding or "utf-8"
    session.out.buffer.write(plain.clean(data).encode(encoding, errors="replace") if plain else data)
    session.out.buffer.flush()


def _add_console(verbs: Verbs) -> None:
    examples = ["ucloud vm console web1", "echo uptime | ucloud vm console web1 --linger 5s"]
    parser = add_verb(verbs, "console", "Use the VM's serial console; Ctrl-] leaves it.", _console, examples=examples)
    nouns.add_reference(parser, "vm")
    parser.add_argument(
        "--linger",
        type=parse_seconds,
        default=2.0,
        metavar="TIME",
        help="without a terminal: end after this silence once the input is at its end (default: 2s)",
    )


def _console(session: Session, args: argparse.Namespace) -> int:
    # Imported here so that all other commands need the standard library alone.
    from ucloud.cli.console import open_console, run_console

    vm = nouns.find(session, "vm", args)
    url = session.client.console_url(vm["id"])
    with open_console(url, session.client.profile.read_token()) as connection:
        session.say(f"connected to the console of {vm['name']}; Ctrl-] leaves it")
        run_console(connection, linger_s=args.linger)
    session.say("")
    return 0
