"""The verbs that all nouns share: list, show, delete, and the options that return in many commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ucloud.cli.parser import Parser, Verbs, add_verb
from ucloud.cli.progress import Progress
from ucloud.cli.session import Session
from ucloud.cli.values import parse_count, parse_label, parse_seconds, parse_switch
from ucloud.client import Object
from ucloud.errors import InvalidInput

DEFAULT_WAIT_S = 300.0
_FILTERS = ("project", "name", "status")


def add_list(verbs: Verbs, noun: str, *, examples: Sequence[str], by_host: bool = False) -> None:
    def run(session: Session, args: argparse.Namespace) -> int:
        filters = {name: value for name in _FILTERS if (value := getattr(args, name, None))}
        if args.sort or args.reverse:
            filters["sort"] = ("-" if args.reverse else "") + (args.sort or "name")
        if by_host and args.host:
            filters["host"] = session.client.find("host", args.host)["id"]
        labels = [f"{name}={value}" for name, value in args.label]
        found = session.client.each(noun, {**filters, **({"label": labels} if labels else {})}, limit=args.limit)
        session.show_all(noun, list(found))
        return 0

    parser = add_verb(verbs, "list", f"List {noun}s.", run, examples=examples)
    parser.add_argument("--name", help="only those with this name")
    parser.add_argument("--status", metavar="WORD", help="only those with this status")
    parser.add_argument("--sort", choices=("name", "created_at"), help="the order")
    parser.add_argument("--reverse", action="store_true", help="backwards (by name, if there is no --sort)")
    parser.add_argument("--limit", type=parse_count, default=0, metavar="N", help="at most so many")
    if by_host:
        parser.add_argument("--host", help="only those on this host")
    add_labels(parser, "only those with this label (may be repeated)")
    add_project(parser)


def add_show(verbs: Verbs, noun: str, *, examples: Sequence[str]) -> None:
    def run(session: Session, args: argparse.Namespace) -> int:
        session.show_details(find(session, noun, args))
        return 0

    parser = add_verb(verbs, "show", f"Show all about one {noun}.", run, examples=examples)
    add_reference(parser, noun)


def add_delete(verbs: Verbs, noun: str, *, examples: Sequence[str]) -> None:
    """Asks on a terminal; elsewhere it wants ``--yes``, so that no script deletes by a slip."""

    def run(session: Session, args: argparse.Namespace) -> int:
        client = session.client
        found = [client.find(noun, reference, project=args.project or "") for reference in args.references]
        if args.dry_run:
            for one in found:
                session.show_dry_run(noun, client.delete(noun, one["id"], dry_run=True))
            return 0
        if not args.yes:
            confirm(session, f"delete {noun} " + ", ".join(f"{one['name']} ({one['id']})" for one in found))
        deleted = [client.delete(noun, one["id"]) or one for one in found]
        if args.wait:
            _wait_gone(session, noun, found, args.timeout)
        if session.is_json:
            session.show_json(deleted)
        else:
            session.say(f"{'deleted' if args.wait else 'deleting'} {', '.join(one['id'] for one in found)}")
        return 0

    parser = add_verb(verbs, "delete", f"Delete {noun}s.", run, examples=examples)
    parser.add_argument("references", nargs="+", metavar=noun.upper(), help="name or id")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask (needed where there is no terminal)")
    add_project(parser)
    add_wait(parser, "until it is gone")
    add_dry_run(parser)


def confirm(session: Session, deed: str) -> None:
    """Raises InvalidInput unless a person at a terminal says yes."""
    if not (sys.stdin.isatty() and session.err.isatty()):
        raise InvalidInput(f"failed to {deed}: not confirmed, and there is no terminal to ask", hint="add --yes")
    session.err.write(f"{deed}? [y/N] ")
    session.err.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise InvalidInput(f"failed to {deed}: not confirmed")


def warn_of_running(session: Session) -> None:
    """Before somebody says that a machine is off."""
    session.say("if that machine still runs, its VMs may run twice: look at it, or cut its power, first")


def change(session: Session, noun: str, args: argparse.Namespace, changes: Object) -> int:
    """Send what ``update`` was given; labels are merged into those that are there."""
    found = find(session, noun, args)
    for option, field in (("name", "name"), ("protect", "delete_protection")):
        if (value := getattr(args, option, None)) is not None:
            changes[field] = value
    generation = None
    if args.label or args.remove_label:
        kept = {name: value for name, value in found.get("labels", {}).items() if name not in args.remove_label}
        changes["labels"] = {**kept, **dict(args.label)}
        generation = found["generation"]
    if not changes:
        raise InvalidInput(f"failed to update {noun} {args.reference}: nothing to change", hint="see --help")
    answer = session.client.update(noun, found["id"], changes, generation=generation, dry_run=args.dry_run)
    if args.dry_run:
        session.show_dry_run(noun, answer)
        return 0
    session.show(noun, answer)
    if pending := (answer.get("status") or {}).get("pending"):
        session.say(f"{', '.join(pending)} will change at the next start: 'ucloud vm reboot {answer['name']}'")
    return 0


def make(session: Session, noun: str, args: argparse.Namespace, body: Object) -> Object | None:
    """Create with those options of add_creation that the noun has; None after a dry run."""
    if getattr(args, "project", None):
        body["project"] = args.project
    if getattr(args, "label", None):
        body["labels"] = dict(args.label)
    if getattr(args, "protect", False):
        body["delete_protection"] = True
    answer = session.client.create(noun, body, dry_run=args.dry_run)
    if args.dry_run:
        session.show_dry_run(noun, answer)
        return None
    return answer


def find(session: Session, noun: str, args: argparse.Namespace) -> Object:
    return session.client.find(noun, args.reference, project=getattr(args, "project", None) or "")


def add_reference(parser: Parser, noun: str) -> None:
    parser.add_argument("reference", metavar=noun.upper(), help="name or id")
    add_project(parser)


def add_project(parser: Parser) -> None:
    parser.add_argument("--project", help="the project to look in, or to make it in")


def add_labels(parser: Parser, text: str) -> None:
    parser.add_argument("--label", type=parse_label, action="append", default=[], metavar="NAME=VALUE", help=text)


def add_dry_run(parser: Parser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="show what would happen, change nothing")


def add_wait(parser: Parser, what: str) -> None:
    parser.add_argument("--wait", action="store_true", help=f"wait {what}, showing how it goes")
    parser.add_argument(
        "--timeout", type=parse_seconds, default=DEFAULT_WAIT_S, metavar="TIME", help="how long to wait (default: 5m)"
    )


def add_creation(parser: Parser) -> None:
    """What every ``create`` takes."""
    add_labels(parser, "a label to give it (may be repeated)")
    parser.add_argument("--protect", action="store_true", help="refuse to delete it until protection is off")
    add_project(parser)
    add_dry_run(parser)


def add_changes(parser: Parser, noun: str) -> None:
    """What every ``update`` takes."""
    add_reference(parser, noun)
    parser.add_argument("--name", help="the new name")
    add_labels(parser, "a label to set (may be repeated)")
    parser.add_argument("--remove-label", action="append", default=[], metavar="NAME", help="a label to take away")
    parser.add_argument("--protect", type=parse_switch, metavar="yes|no", help="delete protection")
    add_dry_run(parser)


def watch(session: Session, title: str) -> Progress:
    return Progress(title, session.err, colours=session.colours(session.err), clock=session.clock)


def _wait_gone(session: Session, noun: str, found: Sequence[Object], timeout_s: float) -> None:
    for one in found:
        with watch(session, f"{noun} {one['name']}") as progress:
            session.client.wait_gone(noun, one["id"], timeout_s, progress.word)
