"""``ucloud failover``: hosts that were lost, what holds their VMs, and an operator's word that a machine is off."""

from __future__ import annotations

import argparse

from ucloud.cli import nouns
from ucloud.cli.parser import Verbs, add_noun, add_verb
from ucloud.cli.session import Session
from ucloud.client import Object


def add_failover(subparsers: Verbs) -> Verbs:
    verbs = add_noun(subparsers, "failover", "Failover: lost hosts, and whether their VMs start elsewhere.")
    examples = ["ucloud failover status", "ucloud failover status --output json"]
    add_verb(verbs, "status", "Show lost hosts, the brake, and what is waited for.", _status, examples=examples)
    examples = ["ucloud failover confirm rack1-3", "ucloud failover confirm rack1-3 --yes"]
    parser = add_verb(
        verbs, "confirm", "Say that a lost host's machine is off: its VMs start elsewhere.", _confirm, examples=examples
    )
    nouns.add_reference(parser, "host")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask (needed where there is no terminal)")
    nouns.add_dry_run(parser)
    return verbs


def _status(session: Session, args: argparse.Namespace) -> int:
    found = session.client.get_failover()
    if session.is_json:
        session.show_json(found)
        return 0
    session.say(render_brake(found["brake"]))
    if found["lost"]:
        session.show_all("lost", found["lost"])
    else:
        session.say("no host is lost")
    return 0


def render_brake(brake: Object) -> str:
    minutes = f"{brake['window_s'] / 60:g} minutes"
    state = "on: takeovers wait" if brake["on"] else "off"
    lost = f"{brake['lost_in_window']} of {brake['hosts']} hosts lost within {minutes}"
    return f"brake {state} ({lost}; it comes on with more than {brake['limit']})"


def _confirm(session: Session, args: argparse.Namespace) -> int:
    host = nouns.find(session, "host", args)
    if args.dry_run:
        session.show_dry_run("host", session.client.act(host["id"], "confirm-off", noun="host", dry_run=True))
        return 0
    if not args.yes:
        nouns.warn_of_running(session)
        nouns.confirm(session, f"confirm that the machine of host {host['name']} ({host['id']}) is off")
    session.show("host", session.client.act(host["id"], "confirm-off", noun="host"))
    return 0
