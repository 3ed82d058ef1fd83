"""``ucloud host drain``, ``undrain`` and ``remove``: taking a host out of service, for a while or for good."""

from __future__ import annotations

import argparse

from ucloud.cli import nouns
from ucloud.cli.parser import Verbs, add_verb
from ucloud.cli.session import Session
from ucloud.cli.tables import render_table
from ucloud.client import Object
from ucloud.errors import Conflict, DeadlineExceeded


def add_drain(verbs: Verbs) -> None:
    """The verbs are those of ``host``."""
    examples = [
        "ucloud host drain rack1-3 --wait",
        "ucloud host drain rack1-3 --stop",
        "ucloud host drain rack1-3 --dry-run",
    ]
    parser = add_verb(verbs, "drain", "Move all VMs off a host; says what cannot move.", _drain, examples=examples)
    nouns.add_reference(parser, "host")
    parser.add_argument("--stop", action="store_true", help="stop what cannot move, until the drain is over")
    nouns.add_dry_run(parser)
    nouns.add_wait(parser, "until nothing runs on it")
    examples = ["ucloud host undrain rack1-3"]
    parser = add_verb(
        verbs, "undrain", "Use a host again: it gets VMs, what was stopped starts.", _undrain, examples=examples
    )
    nouns.add_reference(parser, "host")
    nouns.add_dry_run(parser)
    examples = ["ucloud host remove rack1-3 --yes", "ucloud host remove rack1-3 --dead --yes --wait"]
    parser = add_verb(verbs, "remove", "Remove a host for good.", _remove, examples=examples)
    nouns.add_reference(parser, "host")
    parser.add_argument(
        "--dead", action="store_true", help="it is lost, its machine is off, and it will never come back"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask (needed where there is no terminal)")
    nouns.add_dry_run(parser)
    nouns.add_wait(parser, "until it is gone")


def _drain(session: Session, args: argparse.Namespace) -> int:
    host = nouns.find(session, "host", args)
    answer = session.client.act(host["id"], "drain", {"stop": args.stop}, noun="host", dry_run=args.dry_run)
    if args.dry_run:
        session.show_dry_run("host", answer)
        return 0
    if args.wait:
        try:
            with nouns.watch(session, f"host {host['name']}") as progress:
                answer = session.client.wait_drained(host["id"], args.timeout, progress.word)
        except (Conflict, DeadlineExceeded):
            _show_blocked(session, session.client.get("host", host["id"]))
            raise
    session.show("host", answer)
    _show_blocked(session, answer)
    return 0


def _show_blocked(session: Session, host: Object) -> None:
    """What cannot move and why; in JSON it is in the host."""
    blocked = ((host.get("status") or {}).get("drain") or {}).get("blocked") or []
    if blocked and not session.is_json:
        rows = [(one["vm_id"], one["reason"]) for one in blocked]
        session.out.write("\n" + render_table(("CANNOT MOVE", "REASON"), rows))


def _undrain(session: Session, args: argparse.Namespace) -> int:
    host = nouns.find(session, "host", args)
    answer = session.client.act(host["id"], "undrain", noun="host", dry_run=args.dry_run)
    if args.dry_run:
        session.show_dry_run("host", answer)
    else:
        session.show("host", answer)
    return 0


def _remove(session: Session, args: argparse.Namespace) -> int:
    host = nouns.find(session, "host", args)
    if args.dry_run:
        session.show_dry_run("host", session.client.delete("host", host["id"], dry_run=True, dead=args.dead))
        return 0
    if not args.yes:
        if args.dead:
            nouns.warn_of_running(session)
        nouns.confirm(session, f"remove host {host['name']} ({host['id']}) for good")
    answer = session.client.delete("host", host["id"], dead=args.dead)
    if args.wait:
        with nouns.watch(session, f"host {host['name']}") as progress:
            session.client.wait_gone("host", host["id"], args.timeout, progress.word)
    if session.is_json:
        session.show_json(answer)
    else:
        session.say(f"{'removed' if args.wait else 'removing'} {host['id']}")
    return 0
