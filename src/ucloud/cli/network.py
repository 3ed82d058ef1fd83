"""``ucloud network``: create, list, show, update, delete."""

from __future__ import annotations

import argparse

from ucloud.cli import nouns
from ucloud.cli.parser import Verbs, add_noun, add_verb
from ucloud.cli.session import Session
from ucloud.client import Object
from ucloud.model.network import Egress


def add_network(subparsers: Verbs) -> Verbs:
    verbs = add_noun(subparsers, "network", "Networks and their subnets.")
    nouns.add_list(verbs, "network", examples=["ucloud network list"])
    nouns.add_show(verbs, "network", examples=["ucloud network show main"])
    examples = [
        "ucloud network create main",
        "ucloud network create backup --ipv4-subnet 10.20.0.0/24 --egress none",
        "ucloud network create lab --ipv6-prefix fd00:1:2:3::/64 --dry-run",
    ]
    parser = add_verb(verbs, "create", "Create a network.", _create, examples=examples)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--ipv6-prefix", metavar="PREFIX", help="a /64 (default: a free one of this cloud)")
    parser.add_argument("--ipv4-subnet", metavar="SUBNET", help="such as 10.20.0.0/24 (default: none)")
    parser.add_argument("--egress", choices=list(Egress), help="how it reaches the world (default: nat)")
    nouns.add_creation(parser)
    examples = ["ucloud network update main --egress none", "ucloud network update main --label use=web"]
    parser = add_verb(verbs, "update", "Change a network.", _update, examples=examples)
    nouns.add_changes(parser, "network")
    parser.add_argument("--egress", choices=list(Egress), help="how it reaches the world")
    nouns.add_delete(verbs, "network", examples=["ucloud network delete backup"])
    return verbs


def _create(session: Session, args: argparse.Namespace) -> int:
    fields = {"ipv6_prefix": args.ipv6_prefix, "ipv4_subnet": args.ipv4_subnet, "egress": args.egress}
    body: Object = {"name": args.name, **{name: value for name, value in fields.items() if value}}
    network = nouns.make(session, "network", args, body)
    if network is not None:
        session.show("network", network)
    return 0


def _update(session: Session, args: argparse.Namespace) -> int:
    return nouns.change(session, "network", args, {"egress": args.egress} if args.egress else {})
