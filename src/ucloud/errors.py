"""All errors of ucloud, in one tree.

Error
├── InvalidInput          what was asked makes no sense                      400
│   └── BodyTooLarge      the request is larger than its route allows        413
├── Unauthorized          no or a wrong proof of who asks                    401
├── Forbidden             known, but not allowed                             403
├── NotFound              no such object                                     404
├── Conflict              the world is not as the caller assumed             409
│   ├── InUse             somebody still needs it; names the users
│   ├── Exhausted         a pool, quota or disk is full
│   └── Protected         delete protection is on
├── PreconditionFailed    a stale ``If-Match``                               412
├── Unavailable           a part we depend on does not answer; try again     503
│   ├── StoreUnavailable  no etcd member answered in time
│   └── DeadlineExceeded  a wait ended without its condition
├── StoreError            the store answered, but not as it should           500
│   ├── OutcomeUnknown    a write without an answer: neither done nor failed
│   └── Compacted         the asked revision is no longer in the history     410
├── CommandFailed         a program that we ran ended badly                  500
├── GuestError            QEMU or the guest refused                          500
└── MissingPrerequisite   this machine lacks something; says how to get it   500

Every error has a stable ``code`` for machines; its text follows "failed to <do> <object>: <cause>" and
``hint`` says what to do next. ``api/problems.py`` is the only place that maps them to HTTP.
"""

from __future__ import annotations


class Error(Exception):
    """Base of all errors that ucloud raises on purpose."""

    code = "internal"
    status = 500

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if code:
            self.code = code


class InvalidInput(Error):
    """What was asked makes no sense. ``field`` is the dotted path of the offending field."""

    code = "invalid_input"
    status = 400

    def __init__(self, message: str, *, field: str = "", hint: str = "", code: str = "") -> None:
        super().__init__(message, hint=hint, code=code)
        self.field = field


class BodyTooLarge(InvalidInput):
    code = "body_too_large"
    status = 413


class Unauthorized(Error):
    code = "unauthorized"
    status = 401


class Forbidden(Error):
    code = "forbidden"
    status = 403


class NotFound(Error):
    code = "not_found"
    status = 404


class Conflict(Error):
    code = "conflict"
    status = 409


class InUse(Conflict):
    """Somebody still needs the object. ``users`` are the ids of those that do."""

    code = "in_use"

    def __init__(self, message: str, *, users: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.users = users


class Exhausted(Conflict):
    code = "exhausted"


class Protected(Conflict):
    code = "delete_protected"


class PreconditionFailed(Error):
    code = "precondition_failed"
    status = 412


class Unavailable(Error):
    code = "unavailable"
    status = 503


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"


class StoreError(Error):
    code = "store_error"


class OutcomeUnknown(StoreError):
    code = "outcome_unknown"


class Compacted(StoreError):
    code = "revision_compacted"
    status = 410


class CommandFailed(Error):
    """A program that we ran ended badly. ``stderr`` is cut to 4 KiB."""

    code = "command_failed"

    def __init__(self, message: str, *, exit_code: int = -1, stderr: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code
        self.stderr = stderr


class GuestError(Error):
    code = "guest_error"


class MissingPrerequisite(Error):
    code = "missing_prerequisite"
