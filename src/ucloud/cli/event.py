"""``ucloud event``: what happened, newest last."""

from __future__ import annotations

import argparse
import json
import time

from ucloud.cli import nouns
from ucloud.cli.columns import row_of
from ucloud.cli.human import clean
from ucloud.cli.parser import Verbs, add_noun, add_verb
from ucloud.cli.session import Session
from ucloud.cli.values import parse_count
from ucloud.client import Object

_ABOUT = ("vm", "network", "image", "key", "host")
_DEFAULT_LIMIT = 100
_FOLLOW_S = 1.0


def add_event(subparsers: Verbs) -> Verbs:
    verbs = add_noun(subparsers, "event", "Events: what happened in the cloud.")
    examples = ["ucloud event list", "ucloud event list --vm web1", "ucloud event list --kind vm_started --follow"]
    parser = add_verb(verbs, "list", "List events, the newest last.", _list, examples=examples)
    about = parser.add_mutually_exclusive_group()
    for noun in _ABOUT:
        about.add_argument(f"--{noun}", metavar=noun.upper(), help=f"only those about this {noun} (name or id)")
    parser.add_argument("--kind", help="only those of this kind")
    parser.add_argument("--limit", type=parse_count, default=_DEFAULT_LIMIT, metavar="N", help="the last N (100)")
    parser.add_argument("--follow", action="store_true", help="go on with what happens, until interrupted")
    nouns.add_project(parser)
    return verbs


def _list(session: Session, args: argparse.Namespace) -> int:
    filters = _filters(session, args)
    found = list(session.client.each("event", filters, limit=args.limit))
    if not args.follow:
        session.show_all("event", found)
        return 0
    while True:
        for event in found:
            _show_line(session, event)
            filters["after"] = event["id"]
        time.sleep(_FOLLOW_S)
        found = list(session.client.each("event", filters))


def _filters(session: Session, args: argparse.Namespace) -> dict[str, str]:
    filters = {name: value for name in ("project", "kind") if (value := getattr(args, name))}
    noun = next((noun for noun in _ABOUT if getattr(args, noun)), "")
    if noun:
        reference = getattr(args, noun)
        # The events of an object outlive it: its id needs no object.
        is_id = reference.startswith(f"{noun}-")
        filters["about"] = noun
        filters["about_id"] = reference if is_id else session.client.find(noun, reference)["id"]
    return filters


def _show_line(session: Session, event: Object) -> None:
    if session.is_json:
        session.out.write(json.dumps(event, sort_keys=True, ensure_ascii=False) + "\n")
    else:
        _, kind, about, message = row_of("event", event, session.clock.now())
        session.out.write(clean(f"{event.get('at', '')}  {kind}  {about}  {message}") + "\n")
    session.out.flush()
