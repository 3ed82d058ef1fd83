"""``ucloud vm migrate``, ``migration`` and ``cancel-migration``: a VM goes to another host while it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ucloud.cli import nouns
from ucloud.cli.human import format_mib
from ucloud.cli.parser import Verbs, add_verb
from ucloud.cli.progress import Progress
from ucloud.cli.session import Session
from ucloud.client import Object
from ucloud.errors import NotFound

_STEP_PERCENT = 10


def add_migration(verbs: Verbs) -> None:
    """The verbs are those of ``vm``."""
    examples = [
        "ucloud vm migrate web1 --wait",
        "ucloud vm migrate web1 --to rack1-3",
        "ucloud vm migrate web1 --dry-run",
    ]
    parser = add_verb(verbs, "migrate", "Move a VM to another host while it runs.", _migrate, examples=examples)
    nouns.add_reference(parser, "vm")
    parser.add_argument("--to", metavar="HOST", help="to this host (name or id; default: the best one)")
    nouns.add_dry_run(parser)
    nouns.add_wait(parser, "until it has moved")
    examples = ["ucloud vm migration web1", "ucloud vm migration web1 --output json"]
    parser = add_verb(verbs, "migration", "Show how a VM's newest migration goes or went.", _show, examples=examples)
    nouns.add_reference(parser, "vm")
    examples = ["ucloud vm cancel-migration web1"]
    parser = add_verb(verbs, "cancel-migration", "Cancel a migration: the VM stays.", _cancel, examples=examples)
    nouns.add_reference(parser, "vm")
    nouns.add_dry_run(parser)


def _migrate(session: Session, args: argparse.Namespace) -> int:
    client = session.client
    vm = nouns.find(session, "vm", args)
    before = _last_request(session, vm) if args.wait else ""
    body: Object = {"to_host": client.find("host", args.to)["id"]} if args.to else {}
    answer = client.act(vm["id"], "migrate", body, dry_run=args.dry_run)
    if args.dry_run:
        _show_dry_run(session, answer)
        return 0
    if args.wait:
        _wait(session, vm, args.timeout, before)
    session.show("migration", client.get_migration(vm["id"]))
    return 0


def _show_dry_run(session: Session, answer: Object) -> None:
    session.show_dry_run("vm", answer)
    if (chosen := answer.get("migration")) and not session.is_json:
        session.say(f"it would go to {chosen['to_host_id']}: {chosen['reason']}")


def _last_request(session: Session, vm: Object) -> str:
    try:
        found = session.client.get_migration(vm["id"])
    except NotFound:
        return ""
    return str((found.get("request") or {}).get("id") or "")


def _wait(session: Session, vm: Object, timeout_s: float, before: str) -> None:
    """An interrupt ends the waiting only, and says so."""
    try:
        with nouns.watch(session, f"vm {vm['name']}") as progress:
            session.client.wait_migrated(
                vm["id"], timeout_s, _teller(progress, live=session.err.isatty()), after=before
            )
    except KeyboardInterrupt:
        name = vm["name"]
        session.say(f"the migration goes on: see 'ucloud vm migration {name}', or 'ucloud vm cancel-migration {name}'")
        raise


def _teller(progress: Progress, *, live: bool) -> Callable[[Object], None]:
    """Tells each change on a terminal; elsewhere each phase, and each tenth of what is sent."""
    told: list[tuple[str, int]] = []

    def tell(migration: Object) -> None:
        step = (migration["phase"], migration["percent"] // _STEP_PERCENT)
        if live or step not in told:
            told.append(step)
            progress.word(migration["phase"], _how_far(migration))

    return tell


def _how_far(migration: Object) -> str:
    source = migration.get("source") or {}
    if migration["phase"] == "sending" and source.get("total_mib"):
        sent, total = format_mib(source["sent_mib"]), format_mib(source["total_mib"])
        return f"{sent} of {total}, {migration['percent']} %"
    return str(migration["reason"])


def _show(session: Session, args: argparse.Namespace) -> int:
    migration = session.client.get_migration(nouns.find(session, "vm", args)["id"])
    if session.is_json:
        session.show_json(migration)
    else:
        session.show_details(_details(migration))
    return 0


def _details(migration: Object) -> Object:
    """What people want to know; ``--output json`` has everything."""
    record, source = migration.get("record") or {}, migration.get("source") or {}
    shown: Object = {name: migration.get(name) for name in ("vm_id", "phase", "reason")}
    shown |= {"from": record.get("source"), "to": record.get("target"), "cause": record.get("cause")}
    if source.get("total_mib"):
        sent, total = format_mib(source["sent_mib"]), format_mib(source["total_mib"])
        shown["sent"] = f"{sent} of {total} ({migration['percent']} %)"
    if downtime_ms := source.get("downtime_ms") or record.get("downtime_ms"):
        shown["downtime"] = f"{downtime_ms} ms"
    for role in ("source", "target"):
        part = migration.get(role) or {}
        shown[f"{role} says"] = ": ".join(filter(None, (part.get("state"), part.get("reason"))))
    return shown | {
        "started": record.get("started_at"),
        "since": migration.get("since"),
        "until": migration.get("until"),
    }


def _cancel(session: Session, args: argparse.Namespace) -> int:
    vm = nouns.find(session, "vm", args)
    answer = session.client.act(vm["id"], "cancel-migration", dry_run=args.dry_run)
    if args.dry_run:
        session.show_dry_run("vm", answer)
        return 0
    session.show("migration", session.client.get_migration(vm["id"]))
    return 0
