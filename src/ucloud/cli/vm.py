"""``ucloud vm``: create, list, show, update, delete, start, stop, reboot, explain."""

from __future__ import annotations

import argparse
import base64
from pathlib import Path

from ucloud.cli import nouns
from ucloud.cli.parser import Parser, Verbs, add_noun, add_verb
from ucloud.cli.session import Session
from ucloud.cli.tables import render_details, render_table
from ucloud.cli.values import parse_count, parse_gib, parse_mib, parse_network, parse_whole_seconds
from ucloud.client import Object
from ucloud.errors import InvalidInput
from ucloud.model.vm import Failover, Power, Restart

_ACTION_WORDS = {"start": ("running",), "stop": ("stopped",), "reboot": ("running",)}
_SUMMARIES = {
    "start": "Start a VM that is stopped.",
    "stop": "Ask the guest to power off; end it after the timeout.",
    "reboot": "Stop a VM and start it again, with what was changed meanwhile.",
}


def add_vm(subparsers: Verbs) -> Verbs:
    verbs = add_noun(subparsers, "vm", "Virtual machines.")
    nouns.add_list(
        verbs,
        "vm",
        examples=["ucloud vm list", "ucloud vm list --label role=web --sort created_at --reverse"],
        by_host=True,
    )
    nouns.add_show(verbs, "vm", examples=["ucloud vm show web1", "ucloud vm show web1 --output json"])
    _add_create(verbs)
    _add_update(verbs)
    nouns.add_delete(verbs, "vm", examples=["ucloud vm delete web1", "ucloud vm delete web1 web2 --yes --wait"])
    for action in _ACTION_WORDS:
        _add_action(verbs, action)
    examples = ["ucloud vm explain web1"]
    explain = add_verb(verbs, "explain", "Explain why the VM is where it is, or nowhere.", _explain, examples=examples)
    nouns.add_reference(explain, "vm")
    return verbs


def _add_create(verbs: Verbs) -> None:
    examples = [
        "ucloud vm create web1 --image tiny --key mine --wait",
        "ucloud vm create web1 --image tiny --cpu 1 --memory 256M --disk 1G --network main --key mine --user-data FILE",
        "ucloud vm create db1 --image debian --network main=fd00::5 --network backup --label role=db --dry-run",
    ]
    parser = add_verb(verbs, "create", "Create a VM.", _create, examples=examples)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--image", required=True, help="name or id of the image for its disk")
    _add_sizes(parser)
    parser.add_argument(
        "--network",
        type=parse_network,
        action="append",
        metavar="NETWORK[=ADDRESS,…]",
        help="a network to attach to, if wanted with addresses (may be repeated; default: main)",
    )
    _add_keys(parser)
    parser.add_argument("--user-data", type=Path, metavar="FILE", help="what cloud-init gets, at most 64 KiB")
    parser.add_argument("--stopped", action="store_true", help="create it, but do not start it")
    _add_behaviour(parser)
    nouns.add_creation(parser)
    nouns.add_wait(parser, "until it runs")


def _create(session: Session, args: argparse.Namespace) -> int:
    body: Object = {"name": args.name, "image": args.image, **_chosen(args)}
    if args.network:
        body["networks"] = args.network
    if args.user_data:
        body.update(read_user_data(args.user_data))
    if args.stopped:
        body["power"] = Power.STOPPED.value
    vm = nouns.make(session, "vm", args, body)
    if vm is None:
        return 0
    if args.wait:
        vm = _wait(session, vm, ("stopped",) if args.stopped else ("running",), args.timeout)
    session.show("vm", vm)
    return 0


def _add_update(verbs: Verbs) -> None:
    examples = ["ucloud vm update web1 --memory 1G", "ucloud vm update web1 --label role=web --protect yes"]
    parser = add_verb(verbs, "update", "Change a VM; says what waits for its next start.", _update, examples=examples)
    nouns.add_changes(parser, "vm")
    _add_sizes(parser)
    _add_keys(parser)
    _add_behaviour(parser)


def _update(session: Session, args: argparse.Namespace) -> int:
    return nouns.change(session, "vm", args, _chosen(args))


def _add_action(verbs: Verbs, action: str) -> None:
    def run(session: Session, args: argparse.Namespace) -> int:
        vm = nouns.find(session, "vm", args)
        body = {"timeout_s": args.grace} if getattr(args, "grace", None) is not None else {}
        answer = session.client.act(vm["id"], action, body, dry_run=args.dry_run)
        if args.dry_run:
            session.show_dry_run("vm", answer)
            return 0
        if args.wait:
            answer = _wait(session, answer, _ACTION_WORDS[action], args.timeout)
        session.show("vm", answer)
        return 0

    examples = [f"ucloud vm {action} web1", f"ucloud vm {action} web1 --wait"]
    parser = add_verb(verbs, action, _SUMMARIES[action], run, examples=examples)
    nouns.add_reference(parser, "vm")
    if action != "start":
        parser.add_argument(
            "--grace", type=parse_whole_seconds, metavar="TIME", help="how long the guest has to power off by itself"
        )
    nouns.add_dry_run(parser)
    nouns.add_wait(parser, f"until it is {_ACTION_WORDS[action][0]}")


def _add_sizes(parser: Parser) -> None:
    parser.add_argument("--cpu", type=parse_count, metavar="N", help="virtual CPUs")
    parser.add_argument("--memory", type=parse_mib, metavar="SIZE", help="such as 256M or 1G")
    parser.add_argument("--disk", type=parse_gib, metavar="SIZE", help="such as 10G (default: the image's size)")


def _add_keys(parser: Parser) -> None:
    parser.add_argument("--key", action="append", metavar="KEY", help="an ssh key that may log in (may be repeated)")


def _add_behaviour(parser: Parser) -> None:
    parser.add_argument("--restart", choices=list(Restart), help="when to start it again after the guest ended")
    parser.add_argument("--failover", choices=list(Failover), help="what to do when its host is lost")
    parser.add_argument("--priority", type=int, metavar="N", help="those with more are placed first (-100 to 100)")
    parser.add_argument(
        "--stop-timeout", type=parse_whole_seconds, metavar="TIME", help="how long a stop waits for the guest"
    )


def _chosen(args: argparse.Namespace) -> Object:
    """The fields that were given, under the API's names."""
    fields = {
        "cpus": args.cpu,
        "memory_mib": args.memory,
        "disk_gib": args.disk,
        "keys": args.key,
        "restart": args.restart,
        "failover": args.failover,
        "stop_timeout_s": args.stop_timeout,
        "priority": args.priority,
    }
    return {name: value for name, value in fields.items() if value is not None}


def read_user_data(path: Path) -> Object:
    """As text if it is UTF-8, else (gzip, say) in base64."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"failed to read {path}: {error.strerror}", code="unreadable_file") from error
    try:
        return {"user_data": data.decode()}
    except UnicodeDecodeError:
        return {"user_data_base64": base64.b64encode(data).decode()}


def _wait(session: Session, vm: Object, words: tuple[str, ...], timeout_s: float) -> Object:
    with nouns.watch(session, f"vm {vm['name']}") as progress:
        return session.client.wait_for(vm["id"], words, timeout_s, progress.word)


def _explain(session: Session, args: argparse.Namespace) -> int:
    placement = session.client.get_placement(nouns.find(session, "vm", args)["id"])
    if session.is_json:
        session.show_json(placement)
    else:
        session.out.write(render_placement(placement))
    return 0


def render_placement(placement: Object) -> str:
    """The decision, then each refusing rule with its count and examples, then the best scores."""
    decision = placement.get("decision") or {}
    head = {
        "host": placement.get("host_id") or "none",
        "reason": decision.get("reason"),
        "considered": decision.get("considered"),
        "revision": decision.get("revision"),
        "generation": placement.get("generation"),
        "at": placement.get("at"),
    }
    parts = [render_details(head)]
    if refused := decision.get("refused"):
        parts.append(render_table(("REFUSED BY", "HOSTS"), [(rule, str(hosts)) for rule, hosts in refused.items()]))
    if examples := decision.get("examples"):
        rows = [(one.get("host_id", ""), one.get("rule", ""), one.get("reason", "")) for one in examples]
        parts.append(render_table(("HOST", "RULE", "REASON"), rows))
    if scores := decision.get("scores"):
        rows = [(one.get("host_id", ""), f"{one.get('total', 0):.3f}", _parts(one)) for one in scores]
        parts.append(render_table(("HOST", "SCORE", "PARTS"), rows))
    return "\n".join(parts)


def _parts(score: Object) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in (score.get("parts") or {}).items())
