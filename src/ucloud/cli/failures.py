"""Errors as one line for people and an exit code for scripts.

0 done · 1 the API refused, or a local step failed · 2 asked wrongly · 3 not found · 4 conflict ·
5 not available or not in time · 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ucloud.cli.human import clean
from ucloud.client import ClientError
from ucloud.errors import Conflict, Error, InvalidInput, NotFound, PreconditionFailed, Unavailable

OK = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
UNAVAILABLE = 5
INTERRUPTED = 130

_CODES: tuple[tuple[type[Error], int], ...] = (
    (NotFound, NOT_FOUND),
    (Conflict, CONFLICT),
    (PreconditionFailed, CONFLICT),
    (Unavailable, UNAVAILABLE),
)


def exit_code(error: Error) -> int:
    if isinstance(error, InvalidInput) and not isinstance(error, ClientError):
        return USAGE
    return next((code for cls, code in _CODES if isinstance(error, cls)), FAILED)


def render_failure(error: Error) -> str:
    """``ucloud: failed to …: … (hint)``, with the offending field and the users of an object in use."""
    details = []
    if field := getattr(error, "field", ""):
        details.append(f"field {field}")
    if users := getattr(error, "users", ()):
        details.append(f"used by {', '.join(users)}")
    if error.hint:
        details.append(error.hint)
    if isinstance(error, ClientError) and error.status >= 500 and error.request_id:
        details.append(f"request {error.request_id}")
    text = f"{error.message} ({'; '.join(details)})" if details else error.message
    return f"ucloud: {clean(text)}\n"


def run_to_exit_code(command: Callable[[], int]) -> int:
    """Run a command to its exit code. All errors made on purpose, Ctrl-C and a closed pipe end here."""
    try:
        code = command()
        sys.stdout.flush()
    except Error as error:
        return _fail(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough; nothing may be written at exit either.
        _drop_output()
        return OK
    except OSError as error:  # the output's: everything else has been turned into an Error where it happened
        _drop_output()
        sys.stderr.write(f"ucloud: failed to write the answer: {error.strerror}\n")
        return FAILED
    return code


def _drop_output() -> None:
    """What is still buffered goes nowhere at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Error) -> int:
    try:
        sys.stdout.flush()
        sys.stderr.write(render_failure(error))
    except BrokenPipeError:
        return FAILED
    return exit_code(error)
