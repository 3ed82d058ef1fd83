"""``ucloud completion bash|zsh|fish``: shell completion, generated from the parser that understands the commands.

Names of objects are asked for as they are needed, by ``ucloud completion names NOUN``: quietly, for a second at most.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ucloud.cli.parser import Verbs, add_verb
from ucloud.cli.session import Session
from ucloud.client import Client, find_profile
from ucloud.errors import Error

_NOUNS = ("vm", "network", "image", "key", "host")
_NAMES_DEADLINE_S = 1.0
FILES = "@files"


@dataclass(frozen=True, slots=True)
class Option:
    """``values`` are its choices, ``@noun`` for names of objects, FILES, or empty for anything or nothing."""

    flags: tuple[str, ...]
    summary: str
    values: str
    takes_value: bool


@dataclass(frozen=True, slots=True)
class Command:
    """``path`` is "vm create"; ``words`` are its subcommands; ``place`` is what its positional arguments are."""

    path: str
    summary: str
    words: tuple[str, ...]
    options: tuple[Option, ...]
    place: str


def add_completion(subparsers: Verbs) -> None:
    run = functools.partial(_run, subparsers)
    examples = [
        "ucloud completion bash > /etc/bash_completion.d/ucloud",
        "source <(ucloud completion zsh)",
        "ucloud completion fish > ~/.config/fish/completions/ucloud.fish",
    ]
    parser = add_verb(subparsers, "completion", "Print the completion script of a shell.", run, examples=examples)
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "names"), metavar="bash|zsh|fish")
    parser.add_argument("noun", nargs="?", choices=_NOUNS, help=argparse.SUPPRESS)


def _run(subparsers: Verbs, session: Session, args: argparse.Namespace) -> int:
    if args.shell == "names":
        return _print_names(session, args)
    commands = list(list_commands(subparsers.choices))
    session.out.write(render_fish(commands) if args.shell == "fish" else render_bash(commands, zsh=args.shell == "zsh"))
    return 0


def _print_names(session: Session, args: argparse.Namespace) -> int:
    """Whatever goes wrong, a shell that completes must not show it."""
    try:
        with Client(find_profile(args.profile), timeout_s=_NAMES_DEADLINE_S, patience_s=0) as client:
            names = sorted({one["name"] for one in client.each(args.noun or "vm", limit=500)})
    except Error:
        return 0
    session.out.write("".join(f"{name}\n" for name in names))
    return 0


def list_commands(choices: Mapping[str, argparse.ArgumentParser], path: str = "") -> Iterator[Command]:
    """All commands below ``choices``, a noun before its verbs."""
    for name, parser in choices.items():
        here = f"{path} {name}".strip()
        # argparse offers no public way to look into a parser; ``_actions`` has been there since Python 2.7.
        actions = parser._actions
        below = next((one.choices for one in actions if isinstance(one, argparse._SubParsersAction)), {})
        options = tuple(_option(one) for one in actions if one.option_strings)
        positional = next((one for one in actions if not one.option_strings and one.help != argparse.SUPPRESS), None)
        place = _values(positional) if positional and not below else ""
        yield Command(here, parser.description or "", tuple(below), options, place)
        yield from list_commands(below, here)


def _option(action: argparse.Action) -> Option:
    takes_value = action.nargs != 0
    return Option(tuple(action.option_strings), action.help or "", _values(action) if takes_value else "", takes_value)


def _values(action: argparse.Action) -> str:
    if action.choices is not None:
        return " ".join(str(one) for one in action.choices)
    named = {word.strip("-") for word in action.option_strings} | {str(action.metavar or "").lower()}
    noun = next((noun for noun in _NOUNS if noun in named), "")
    if noun:
        return f"@{noun}"
    is_file = action.type is Path or "FILE" in str(action.metavar)
    return FILES if is_file else ""


def render_bash(commands: Sequence[Command], *, zsh: bool = False) -> str:
    """zsh runs the same function through its bash emulation."""
    words, places, values = [], [], []
    for command in commands:
        flags = " ".join(flag for option in command.options for flag in option.flags)
        words.append(f'        "{command.path}") echo "{" ".join((*command.words, flags))}" ;;')
        if command.place:
            places.append(f'        "{command.path}") echo "{command.place}" ;;')
        for option in command.options:
            if option.takes_value:
                pattern = "|".join(f'"{command.path} {flag}"' for flag in option.flags)
                values.append(f'        {pattern}) echo "{option.values or "@any"}" ;;')
    top = " ".join(command.path for command in commands if " " not in command.path)
    script = _BASH.format(
        top=top,
        nouns="|".join(f'"{command.path}"' for command in commands if command.words) or "-",
        words="\n".join(words),
        places="\n".join(places),
        values="\n".join(values),
    )
    return f"#compdef ucloud\nautoload -U +X bashcompinit && bashcompinit\n{script}" if zsh else script


def render_fish(commands: Sequence[Command]) -> str:
    lines = ["complete -c ucloud -f"]
    for command in commands:
        above, _, name = command.path.rpartition(" ")
        summary = _quote(command.summary)
        condition = f"__fish_seen_subcommand_from {above}" if above else "__fish_use_subcommand"
        lines.append(f"complete -c ucloud -n '{condition}' -a {name} -d {summary}")
        inside = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.path.split())
        if command.words:
            continue
        if command.place:
            lines.append(f"complete -c ucloud -n '{inside}' {_fish_values(command.place)}")
        for option in command.options:
            flags = " ".join(f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags)
            value = f" -r {_fish_values(option.values)}" if option.takes_value else ""
            lines.append(f"complete -c ucloud -n '{inside}' {flags}{value} -d {_quote(option.summary)}".rstrip())
    return "\n".join(lines) + "\n"


def _fish_values(values: str) -> str:
    if values == FILES:
        return "-F"
    if values.startswith("@"):
        return f"-a '(ucloud completion names {values[1:]})'"
    return f"-a '{values}'" if values else ""


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_BASH = """\
_ucloud_words() {{
    case "$1" in
        "") echo "{top}" ;;
{words}
    esac
}}
_ucloud_place() {{
    case "$1" in
{places}
    esac
}}
_ucloud_values() {{
    case "$1" in
{values}
    esac
}}
_ucloud() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" path="" word index values
    for ((index = 1; index < COMP_CWORD; index++)); do
        word="${{COMP_WORDS[index]}}"
        case "$word" in
            -o|--output|--profile) [ -z "$path" ] && ((index++)) ;;
            -*) ;;
            *)
                path="${{path:+$path }}$word"
                case "$path" in {nouns}) ;; *) break ;; esac ;;
        esac
    done
    values="$(_ucloud_values "$path $previous")"
    [ -z "$values" ] && [ "${{current#-}}" = "$current" ] && values="$(_ucloud_place "$path")"
    case "$values" in
        "") COMPREPLY=($(compgen -W "$(_ucloud_words "$path")" -- "$current")) ;;
        @files) COMPREPLY=($(compgen -f -- "$current")) ;;
        @any) COMPREPLY=() ;;
        @*) COMPREPLY=($(compgen -W "$(ucloud completion names "${{values#@}}" 2>/dev/null)" -- "$current")) ;;
        *) COMPREPLY=($(compgen -W "$values" -- "$current")) ;;
    esac
}}
complete -F _ucloud ucloud
"""
