"""``ucloud key``: public ssh keys."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ucloud.cli import nouns
from ucloud.cli.parser import Verbs, add_noun, add_verb
from ucloud.cli.session import Session
from ucloud.errors import InvalidInput

_KINDS = ("ssh-", "ecdsa-", "sk-")


def add_key(subparsers: Verbs) -> Verbs:
    verbs = add_noun(subparsers, "key", "Public ssh keys that may log in to VMs.")
    nouns.add_list(verbs, "key", examples=["ucloud key list"])
    nouns.add_show(verbs, "key", examples=["ucloud key show mine"])
    examples = [
        "ucloud key create mine --public-key ~/.ssh/id_ed25519.pub",
        'ucloud key create mine --public-key "ssh-ed25519 AAAA… me"',
        "ssh-add -L | head -1 | ucloud key create mine --public-key -",
    ]
    parser = add_verb(verbs, "create", "Add a public key.", _create, examples=examples)
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--public-key", required=True, metavar="FILE|KEY|-", help="a .pub file, the line itself, or -")
    nouns.add_creation(parser)
    examples = ["ucloud key update mine --name laptop"]
    parser = add_verb(verbs, "update", "Change a key's name or labels.", _update, examples=examples)
    nouns.add_changes(parser, "key")
    nouns.add_delete(verbs, "key", examples=["ucloud key delete mine"])
    return verbs


def _create(session: Session, args: argparse.Namespace) -> int:
    key = nouns.make(session, "key", args, {"name": args.name, "public_key": read_public_key(args.public_key)})
    if key is not None:
        session.show("key", key)
    return 0


def _update(session: Session, args: argparse.Namespace) -> int:
    return nouns.change(session, "key", args, {})


def read_public_key(source: str) -> str:
    """The authorized_keys line. Refuses a private key, so that it never leaves this machine."""
    if source.startswith(_KINDS) and " " in source:
        return source.strip()
    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text()
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or "it is not text"
        raise InvalidInput(f"failed to read {source}: {cause}", code="unreadable_file") from error
    if "PRIVATE KEY" in text:
        raise InvalidInput(f"failed to use {source}: it is a private key", hint=f"use {source}.pub")
    return text.strip()
