"""The door of the command line: adds the nouns to a parser, and runs the chosen command to an exit code."""

from __future__ import annotations

import argparse
import os
import sys

from ucloud.cli.completion import add_completion
from ucloud.cli.event import add_event
from ucloud.cli.failures import FAILED, INTERRUPTED, OK, exit_code, render_failure
from ucloud.cli.host import add_host
from ucloud.cli.image import add_image
from ucloud.cli.key import add_key
from ucloud.cli.network import add_network
from ucloud.cli.parser import Verbs
from ucloud.cli.session import Session
from ucloud.cli.vm import add_vm
from ucloud.cli.vm_access import add_access
from ucloud.errors import Error


def add_commands(subparsers: Verbs) -> dict[str, Verbs]:
    """Add all client commands; returns each noun's verbs, so that the caller can add local ones (``image build``)."""
    verbs = {
        "vm": add_vm(subparsers),
        "network": add_network(subparsers),
        "image": add_image(subparsers),
        "key": add_key(subparsers),
        "host": add_host(subparsers),
        "event": add_event(subparsers),
    }
    add_access(verbs["vm"])
    add_completion(subparsers)
    return verbs


def is_client_command(args: argparse.Namespace) -> bool:
    """Whether ``args`` chose a command that was added here."""
    return hasattr(args, "client_command")


def run(args: argparse.Namespace) -> int:
    """Run the chosen command. All errors made on purpose, Ctrl-C and a closed pipe end here."""
    session = Session(profile=getattr(args, "profile", None), output=getattr(args, "output", "table"))
    try:
        code: int = args.client_command(session, args)
        sys.stdout.flush()
    except Error as error:
        return _fail(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    finally:
        session.close()
    return code


def _fail(error: Error) -> int:
    try:
        sys.stdout.flush()
        sys.stderr.write(render_failure(error))
    except BrokenPipeError:
        return FAILED
    return exit_code(error)
