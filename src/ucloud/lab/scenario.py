"""Scenarios: a file of steps, one a line, run one after the other against a lab, with a log of what happened when.

    # comments
    create 8 vms [failover=restart] [memory=64M] [prefix=web]
    wait all running 60s            wait vm web1 running 30s [on h2]
    wait host h2 ready 30s          wait leader 10s
    fault power-off h2              at 5s fault cut h2 --from etcd
    sleep 5s                        expect vm web1 running [on h2]
    heal                            exec client ucloud vm list
    check                           say half of it is done

``at`` counts from the scenario's start. A step that fails ends the scenario. Names of VMs are prefix and number.
"""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ucloud.cli.values import parse_mib
from ucloud.errors import Conflict, InvalidInput
from ucloud.lab.driver import Lab
from ucloud.lab.durations import parse_duration_s
from ucloud.lab.fault_commands import Run, add_faults
from ucloud.lab.faults import Faults

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """``at_s`` is None for one that follows the step before it at once."""

    line: int
    at_s: float | None
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def parse_scenario(text: str, *, origin: str) -> tuple[Step, ...]:
    """Pure. Raises InvalidInput naming the line."""
    steps = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(line, comments=True)
            at_s = None
            if words[:1] == ["at"]:
                if len(words) < 3:
                    raise InvalidInput("expected: at TIME STEP")
                at_s, words = parse_duration_s(words[1]), words[2:]
            if words:
                _check(words)
                steps.append(Step(number, at_s, tuple(words)))
        except (ValueError, argparse.ArgumentTypeError, InvalidInput) as error:
            cause = error.message if isinstance(error, InvalidInput) else str(error)
            raise InvalidInput(f"failed to read {origin}, line {number}: {cause}", code="bad_scenario") from error
    return tuple(steps)


def read_scenario(path: Path) -> tuple[Step, ...]:
    try:
        return parse_scenario(path.read_text(), origin=str(path))
    except OSError as error:
        raise InvalidInput(f"failed to read {path}: {error.strerror}", code="unreadable_file") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"failed to read {path}: it is no text", code="unreadable_file") from error


def _check(words: Sequence[str]) -> None:
    """What can be known to be wrong before anything happens. Raises InvalidInput or ArgumentTypeError."""
    if words[0] == "fault":
        parse_fault(words[1:])
    elif words[0] not in _STEPS:
        raise InvalidInput(f"no such step: {words[0]} (there are: fault, {', '.join(_STEPS)})")
    else:
        _check_words(words)


def _check_words(words: Sequence[str]) -> None:
    match words:
        case ("create", count, "vm" | "vms", *options) if count.isdecimal():
            _fields(options)
        case ("wait", "vm", _, _, limit) | ("wait", "vm", _, _, limit, "on", _) | ("wait", "host", _, _, limit):
            parse_duration_s(limit)
        case ("wait", "all", _, limit) | ("wait", "leader", limit) | ("sleep", limit):
            parse_duration_s(limit)
        case ("expect", "vm", _, _) | ("expect", "vm", _, _, "on", _) | ("exec", _, _, *_):
            pass
        case ("heal",) | ("check",) | ("say", *_):
            pass
        case _:
            raise InvalidInput(f"expected: {_USAGE[words[0]]}")


class _FaultParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidInput(message)


def parse_fault(words: Sequence[str]) -> argparse.Namespace:
    """The words of ``ucloud lab fault``."""
    parser = _FaultParser(add_help=False, allow_abbrev=False)

    def add(verbs: object, name: str, _: str, run: Run) -> argparse.ArgumentParser:
        one: argparse.ArgumentParser = verbs.add_parser(name, add_help=False, allow_abbrev=False)  # type: ignore[attr-defined]
        one.set_defaults(fault_run=run)
        return one

    add_faults(parser.add_subparsers(dest="fault", required=True), add)
    return parser.parse_args(list(words))


class Runner:
    def __init__(self, lab: Lab, say: Say) -> None:
        self._lab = lab
        self._say = say
        self._started_s = time.monotonic()

    def run(self, steps: Sequence[Step]) -> None:
        """Raises what a step raises."""
        self._started_s = time.monotonic()
        for step in steps:
            if step.at_s is not None:
                time.sleep(max(0.0, self._started_s + step.at_s - time.monotonic()))
            self._log(step.text)
            self._do(step.words)
        self._log("done")

    def _log(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._started_s:8.3f} {text}")

    def _do(self, words: tuple[str, ...]) -> None:
        if words[0] == "fault":
            args = parse_fault(words[1:])
            args.fault_run(Faults(self._lab.layout, self._lab.shape), args, self._log)
        else:
            _STEPS[words[0]](self, words[1:])

    def _create(self, words: tuple[str, ...]) -> None:
        made = self._lab.create_vms(int(words[0]), **_fields(words[2:]))
        self._log(f"created {', '.join(vm['name'] for vm in made)}")

    def _wait(self, words: tuple[str, ...]) -> None:
        match words:
            case ("vm", name, word, limit, *on):
                self._lab.wait_vm(name, word, timeout_s=parse_duration_s(limit), host=on[1] if on else "")
            case ("all", word, limit):
                self._lab.wait_all(word, timeout_s=parse_duration_s(limit))
            case ("host", name, word, limit):
                self._lab.wait_host(name, word, timeout_s=parse_duration_s(limit))
            case ("leader", limit):
                found = self._lab.wait(self._lab.etcd_leader, "etcd has a leader", timeout_s=parse_duration_s(limit))
                self._log(f"{found} leads")
            case _:
                raise InvalidInput(f"failed to wait for {' '.join(words)}: no such thing to wait for")

    def _expect(self, words: tuple[str, ...]) -> None:
        _, name, word, *on = words
        vm = self._lab.vm(name)
        found, host = vm["status"]["word"], vm["status"].get("host_id") or ""
        if found != word or (on and host != on[1]):
            raise Conflict(f"failed to find vm {name} {' '.join(words[2:])}: it is {found} on {host or 'no host'}")

    def _check(self, _: tuple[str, ...]) -> None:
        violations = self._lab.check()
        for violation in violations:
            self._log(str(violation))
        if violations:
            raise Conflict(f"failed the check: {len(violations)} promises were broken", code="violations")

    def _exec(self, words: tuple[str, ...]) -> None:
        self._say(self._lab.run_inside(words[0], words[1:]).rstrip("\n"))

    def _heal(self, _: tuple[str, ...]) -> None:
        self._lab.faults.heal()


def _fields(words: Sequence[str]) -> dict[str, Any]:
    """The API's fields of a VM, and perhaps ``prefix``."""
    fields: dict[str, Any] = dict(_options(words))
    if "memory" in fields:
        fields["memory_mib"] = parse_mib(fields.pop("memory"))
    return fields


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InvalidInput(f"failed to read {word!r}: expected NAME=VALUE")
        yield name, value


_USAGE = {
    "create": "create N vms [NAME=VALUE ...]",
    "wait": "wait vm NAME WORD TIME [on HOST], all WORD TIME, host HOST WORD TIME, or leader TIME",
    "expect": "expect vm NAME WORD [on HOST]",
    "check": "check",
    "exec": "exec NODE COMMAND ...",
    "heal": "heal",
    "sleep": "sleep TIME",
}
_STEPS: dict[str, Callable[[Runner, tuple[str, ...]], None]] = {
    "create": Runner._create,
    "wait": Runner._wait,
    "expect": Runner._expect,
    "check": Runner._check,
    "exec": Runner._exec,
    "heal": Runner._heal,
    "sleep": lambda _, words: time.sleep(parse_duration_s(words[0])),
    "say": lambda runner, words: runner._log(" ".join(words)),
}
