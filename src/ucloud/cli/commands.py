"""The door of the command line: adds the nouns to a parser, and runs the chosen command to an exit code."""

from __future__ import annotations

import argparse

from ucloud.cli.completion import add_completion
from ucloud.cli.event import add_event
from ucloud.cli.failover import add_failover
from ucloud.cli.failures import run_to_exit_code
from ucloud.cli.host import add_host
from ucloud.cli.host_drain import add_drain
from ucloud.cli.image import add_image
from ucloud.cli.key import add_key
from ucloud.cli.migration import add_migration
from ucloud.cli.network import add_network
from ucloud.cli.parser import Verbs
from ucloud.cli.session import Session
from ucloud.cli.vm import add_vm
from ucloud.cli.vm_access import add_access


def add_commands(subparsers: Verbs) -> dict[str, Verbs]:
    """Add all client commands; returns each noun's verbs, so that the caller can add local ones (``image build``)."""
    verbs = {
        "vm": add_vm(subparsers),
        "network": add_network(subparsers),
        "image": add_image(subparsers),
        "key": add_key(subparsers),
        "host": add_host(subparsers),
        "event": add_event(subparsers),
        "failover": add_failover(subparsers),
    }
    add_access(verbs["vm"])
    add_migration(verbs["vm"])
    add_drain(verbs["host"])
    add_completion(subparsers)
    return verbs


def is_client_command(args: argparse.Namespace) -> bool:
    """Whether ``args`` chose a command that was added here."""
    return hasattr(args, "client_command")


def run(args: argparse.Namespace) -> int:
    """Run the chosen command of a client."""
    session = Session(profile=getattr(args, "profile", None), output=getattr(args, "output", "table"))
    try:
        return run_to_exit_code(lambda: args.client_command(session, args))
    finally:
        session.close()
