"""The argument parser of ucloud: one-line usage errors, examples in each help text, options that stand anywhere.

``--output`` and ``--profile`` may come before the noun or after the verb, so their defaults are set at the root only.
What follows a lone ``--`` is not parsed: it is ``args.tail``, the command for ``vm ssh``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

USAGE_EXIT = 2

Verbs = Any
"""What ``add_subparsers`` gives; argparse has no public name for it."""


class Parser(argparse.ArgumentParser):
    """For the root of the command line; the parsers of its commands become the same class."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def parse_args(  # type: ignore[override]  # the base has overloads for foreign namespaces
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """With what follows ``--`` in ``tail``."""
        words = list(sys.argv[1:] if args is None else args)
        cut = words.index("--") if "--" in words else len(words)
        parsed = super().parse_args(words[:cut], namespace) or argparse.Namespace()
        parsed.tail = words[cut + 1 :]
        if parsed.tail and not getattr(parsed, "takes_tail", False):
            self.error(f"unexpected after --: {' '.join(parsed.tail)}")
        return parsed

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE_EXIT, f"ucloud: failed to understand the command: {message} (try '{self.prog} --help')\n")


def add_shared_options(parser: argparse.ArgumentParser, *, at_root: bool = False) -> None:
    """``--output`` and ``--profile``; without ``at_root`` they leave no default, so that the root's stays."""
    group = parser.add_argument_group("for all commands")
    group.add_argument(
        "-o",
        "--output",
        choices=("table", "json"),
        default="table" if at_root else argparse.SUPPRESS,
        help="how to show the answer (default: table)",
    )
    group.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        default=None if at_root else argparse.SUPPRESS,
        help="which cloud: a file with url and token_file",
    )


def add_noun(subparsers: Verbs, noun: str, summary: str) -> Verbs:
    """A noun's parser; returns what its verbs are added to."""
    parser = subparsers.add_parser(noun, help=summary, description=summary)
    return parser.add_subparsers(dest="verb", metavar="VERB", required=True)


def add_verb(verbs: Verbs, name: str, summary: str, run: Callable[..., int], *, examples: Sequence[str]) -> Parser:
    """A verb's parser. ``run(session, args)`` is called for it."""
    epilog = "examples:\n" + "\n".join(f"  {example}" for example in examples)
    parser: Parser = verbs.add_parser(name, help=summary, description=summary, epilog=epilog)
    parser.set_defaults(client_command=run)
    add_shared_options(parser)
    return parser
