"""The one gate for running other programs: an argument list, a deadline, no shell, no inherited surprises.

``run`` waits for a program; ``spawn`` starts one that stays (its caller owns it). Both give the child a
small fixed environment, so that nothing of ours leaks into it and its messages are in English.
``replace_process`` hands this process, with its terminal and environment, to a program for people.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from ucloud.errors import CommandFailed, DeadlineExceeded, MissingPrerequisite
from ucloud.system import process_unix

Process = subprocess.Popen[bytes]  # what spawn gives

DEFAULT_TIMEOUT_S = 30.0
_STDERR_LIMIT = 4096
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/nonexistent",
}


@dataclass(frozen=True, slots=True)
class Completed:
    """What a finished program left. ``stdout`` and ``stderr`` are text with bad bytes replaced."""

    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program that reads hostile input may use. ``uid`` is taken on (with an equal gid) if we are root."""

    memory_bytes: int
    cpu_s: int
    uid: int | None = None


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    stdin: str | bytes | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    limits: Limits | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run ``argv`` to its end. Raises CommandFailed (``check``), DeadlineExceeded or MissingPrerequisite."""
    program = str(argv[0])
    words = [*_limit_words(limits), *(str(word) for word in argv)]
    identity = limits.uid if limits is not None and os.geteuid() == 0 else None
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        done = subprocess.run(
            words,
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=timeout_s,
            env={**_ENVIRONMENT, **(env or {})},
            cwd=cwd,
            user=identity,
            group=identity,
            extra_groups=None if identity is None else (),
            pass_fds=tuple(pass_fds),
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingPrerequisite(
            f"failed to run {program}: the program is not installed", hint="run 'ucloud doctor'"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise DeadlineExceeded(f"failed to run {program}: no end after {timeout_s:g} s") from error
    stdout = done.stdout.decode(errors="replace")
    stderr = done.stderr.decode(errors="replace")[-_STDERR_LIMIT:]
    if check and done.returncode != 0:
        cause = (stderr or stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise CommandFailed(f"failed to run {program}: {cause[0][:500]}", exit_code=done.returncode, stderr=stderr)
    return Completed(done.returncode, stdout, stderr)


def _limit_words(limits: Limits | None) -> list[str]:
    """prlimit(1) sets the limits after the fork: code of ours between fork and exec is not safe with threads."""
    if limits is None:
        return []
    return ["prlimit", f"--as={limits.memory_bytes}", f"--cpu={limits.cpu_s}", "--core=0", "--"]


def spawn(
    argv: Sequence[str | Path],
    *,
    log: IO[bytes] | int | None = None,
    env: Mapping[str, str] | None = None,
    new_session: bool = True,
    pass_fds: Sequence[int] = (),
    die_with_parent: bool = False,
) -> Process:
    """Start a program that stays; its output goes to ``log`` (nowhere if None). The caller reaps it.

    ``die_with_parent``: the kernel kills it when the calling thread ends, so call it from one that stays.
    """
    words = [str(word) for word in argv]
    sink = subprocess.DEVNULL if log is None else log
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env={**_ENVIRONMENT, **(env or {})},
            start_new_session=new_session,
            pass_fds=tuple(pass_fds),
            preexec_fn=process_unix.die_with_parent if die_with_parent else None,
        )
    except FileNotFoundError as error:
        raise MissingPrerequisite(
            f"failed to start {words[0]}: the program is not installed", hint="run 'ucloud doctor'"
        ) from error


def replace_process(argv: Sequence[str | Path]) -> NoReturn:
    """Become ``argv``, found on the caller's PATH: for a person's own tools, such as ssh with its agent."""
    words = [str(word) for word in argv]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvp(words[0], words)  # noqa: S606 (an argument list, no shell)
    except FileNotFoundError as error:
        raise MissingPrerequisite(
            f"failed to run {words[0]}: the program is not installed", hint=f"install {words[0]}"
        ) from error
