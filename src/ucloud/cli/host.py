"""``ucloud host``: the machines that run VMs."""

from __future__ import annotations

import argparse

from ucloud.cli import nouns
from ucloud.cli.parser import Verbs, add_noun, add_verb
from ucloud.cli.session import Session
from ucloud.cli.values import parse_switch
from ucloud.client import Object


def add_host(subparsers: Verbs) -> Verbs:
    verbs = add_noun(subparsers, "host", "Hosts: the machines that run VMs.")
    nouns.add_list(verbs, "host", examples=["ucloud host list"])
    nouns.add_show(verbs, "host", examples=["ucloud host show host-local"])
    examples = ["ucloud host create rack1-3", "ucloud host create rack1-3 --id host-rack1-3"]
    parser = add_verb(verbs, "create", "Make a host known, so that it may register.", _create, examples=examples)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--id", help="the id in that host's configuration (default: a fresh one)")
    nouns.add_dry_run(parser)
    examples = ["ucloud host update host-local --schedulable no"]
    parser = add_verb(verbs, "update", "Change whether a host gets new VMs, or its labels.", _update, examples=examples)
    parser.add_argument("reference", metavar="HOST", help="name or id")
    parser.add_argument("--schedulable", type=parse_switch, metavar="yes|no", help="whether it gets new VMs")
    nouns.add_labels(parser, "a label to set (may be repeated)")
    parser.add_argument("--remove-label", action="append", default=[], metavar="NAME", help="a label to take away")
    nouns.add_dry_run(parser)
    return verbs


def _create(session: Session, args: argparse.Namespace) -> int:
    body: Object = {"name": args.name, **({"id": args.id} if args.id else {})}
    host = nouns.make(session, "host", args, body)
    if host is not None:
        session.show("host", host)
    return 0


def _update(session: Session, args: argparse.Namespace) -> int:
    changes = {} if args.schedulable is None else {"schedulable": args.schedulable}
    return nouns.change(session, "host", args, changes)
