"""What the agent and the guard say to each other over the guard's unix socket.

One connection carries one request and one answer, each a line of JSON. Descriptors for the new process go along
with the request's first byte (SCM_RIGHTS); in the process they are numbered from FIRST_FD in the order sent.
The answer is ``{"ok": …}`` or ``{"error": {"code", "message", "hint"}}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ucloud.errors import Conflict, Error, GuestError, InvalidInput, NotFound, Unavailable
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover
from ucloud.store.codec import from_plain, to_plain

FIRST_FD = 3
FDS_LIMIT = 64
REQUEST_LIMIT_BYTES = 256 * 1024
ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
STDERR_TAIL_BYTES = 2048
UNKNOWN_EXIT = -1
_IDS_LIMIT = 2**32 - 1
_DEVICE_NAME_LIMIT = 16

_ERRORS = {cls.code: cls for cls in (InvalidInput, NotFound, Conflict, Unavailable, GuestError)}


@dataclass(frozen=True, slots=True)
class VmProcess:
    """A QEMU process the guard has or had. ``pid`` is the host's.

    ``exit_code`` is UNKNOWN_EXIT while it runs, if a signal ended it, and if nobody could see how it ended;
    ``signal`` is 0 unless a signal ended it. ``lost`` tells that it ended by no doing of its own: together with an
    earlier guard, or because its guard had no evidence. ``frozen``: its guard stopped it, and lets it go on when
    evidence is back; ``stuck``: it was told to stop, and is neither dead nor still.
    """

    vm_id: str
    generation: int
    boots: int
    incarnation: str
    failover: Failover
    pid: int
    running: bool
    started_at: str
    ended_at: str = ""
    exit_code: int = UNKNOWN_EXIT
    signal: int = 0
    lost: bool = False
    stderr_tail: str = ""
    frozen: bool = False
    stuck: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """``alive``: the life sign is in the store. ``evidence_age_s`` is −1 if there never was evidence (rule A2).

    ``fence_s`` and ``kill_s`` are F and K; ``left_s`` is how long evidence lasts if nothing more is learnt: 0 without,
    −1 for a guard that never fences. ``members_version`` is that of the list of etcd members it knows. ``stuck`` are
    the VMs that it could not stop.
    """

    host_id: str
    incarnation: str
    since: str
    alive: bool
    fenced: bool
    sealed: bool
    evidence_age_s: float
    longest_gap_s: float
    fence_s: float = 0.0
    kill_s: float = 0.0
    left_s: float = -1.0
    members_version: int = 0
    stuck: tuple[str, ...] = ()


class StartMode(StrEnum):
    """Whether the VM runs from its start on, or first takes over the memory of one that runs elsewhere."""

    RUN = "run"
    INCOMING = "incoming"


@dataclass(frozen=True, slots=True)
class StartRequest:
    """``argv[0]`` is an absolute path. The process gets ``uid``, ``gid``, ``groups`` and no other right.

    ``incarnation`` is the guard's that the VM's run lock names: another one starts nothing. ``taps`` are the VM's
    devices, whose traffic stops when this host has no evidence. ``pool_fence`` decides whether the VM is then killed or
    frozen.
    """

    vm_id: str
    generation: int
    boots: int
    failover: Failover
    uid: int
    gid: int
    argv: tuple[str, ...]
    groups: tuple[int, ...] = ()
    incarnation: str = ""
    taps: tuple[str, ...] = ()
    pool_fence: Fence = Fence.NONE
    mode: StartMode = StartMode.RUN


@dataclass(frozen=True, slots=True)
class Named:
    """One process, exactly: what kill and forget want to be told (law 5)."""

    vm_id: str
    generation: int
    boots: int


@dataclass(frozen=True, slots=True)
class Permit:
    """A VM that stands still and shall go on, and the incarnation that its run lock names."""

    vm_id: str
    generation: int
    boots: int
    incarnation: str


@dataclass(frozen=True, slots=True)
class Only:
    """What list may be limited to; "" for all."""

    vm_id: str = ""


def encode_request(op: str, body: StartRequest | Named | Permit | Only | None = None) -> bytes:
    plain = {} if body is None else to_plain(body)
    return json.dumps({"op": op, **plain}, separators=(",", ":")).encode() + b"\n"


def parse_request(line: bytes) -> tuple[str, Mapping[str, Any]]:
    """The operation and its fields. Raises InvalidInput."""
    plain = _parse_object(line, "request")
    op = plain.get("op")
    if not isinstance(op, str):
        raise InvalidInput("failed to read a request: it has no op", field="op")
    return op, plain


def parse_start(plain: Mapping[str, Any]) -> StartRequest:
    """Raises InvalidInput for anything that could not be a VM of ours."""
    if not isinstance(plain.get("argv"), list):
        raise InvalidInput("failed to start a process: argv is no list", field="argv")
    request: StartRequest = _parse_body(StartRequest, plain)
    if not request.argv or not request.argv[0].startswith("/"):
        raise InvalidInput("failed to start a process: argv[0] is no absolute path", field="argv")
    if any("\0" in word for word in request.argv):
        raise InvalidInput("failed to start a process: an argument holds a NUL", field="argv")
    if not all(0 < number < _IDS_LIMIT for number in (request.uid, request.gid, *request.groups)):
        raise InvalidInput("failed to start a process: it may not run as root, nor as what is no id", field="uid")
    if not all(0 < len(tap) < _DEVICE_NAME_LIMIT and tap.isascii() and tap.isprintable() for tap in request.taps):
        raise InvalidInput("failed to start a process: a tap's name is no name of a device", field="taps")
    _check_vm_id(request.vm_id)
    return request


def parse_named(plain: Mapping[str, Any]) -> Named:
    named: Named = _parse_body(Named, plain)
    _check_vm_id(named.vm_id)
    return named


def parse_permit(plain: Mapping[str, Any]) -> Permit:
    permit: Permit = _parse_body(Permit, plain)
    _check_vm_id(permit.vm_id)
    return permit


def parse_only(plain: Mapping[str, Any]) -> Only:
    only: Only = _parse_body(Only, plain)
    return only


def encode_answer(value: Any) -> bytes:
    return json.dumps({"ok": to_plain(value)}, separators=(",", ":")).encode() + b"\n"


def encode_error(error: Error) -> bytes:
    base = next((code for code, cls in _ERRORS.items() if isinstance(error, cls)), GuestError.code)
    answer = {"class": base, "code": error.code, "message": error.message, "hint": error.hint}
    return json.dumps({"error": answer}, separators=(",", ":")).encode() + b"\n"


def parse_answer(line: bytes) -> Any:
    """The plain value of an answer. Raises the error that the guard answered with, or GuestError."""
    try:
        plain = _parse_object(line, "answer")
    except InvalidInput as error:
        raise GuestError(f"failed to read the guard's answer: {error.message}") from error
    if "error" not in plain:
        return plain.get("ok")
    said = plain["error"]
    if not isinstance(said, dict) or not isinstance(said.get("message"), str):
        raise GuestError("failed to read the guard's answer: an error without a message")
    cls = _ERRORS.get(str(said.get("class", "")), GuestError)
    raise cls(said["message"], hint=str(said.get("hint", "")), code=str(said.get("code", "")))


def parse_process(plain: Any) -> VmProcess:
    try:
        return from_plain(VmProcess, plain)
    except (TypeError, KeyError, ValueError) as error:
        raise GuestError(f"failed to read the guard's answer: {error}") from error


def parse_hello(plain: Any) -> Hello:
    try:
        return from_plain(Hello, plain)
    except (TypeError, KeyError, ValueError) as error:
        raise GuestError(f"failed to read the guard's answer: {error}") from error


def _parse_object(line: bytes, what: str) -> dict[str, Any]:
    try:
        plain = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"failed to read the {what}: it is not JSON") from error
    if not isinstance(plain, dict):
        raise InvalidInput(f"failed to read the {what}: it is no JSON object")
    return plain


def _parse_body(cls: Any, plain: Mapping[str, Any]) -> Any:
    try:
        return from_plain(cls, plain)
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidInput(f"failed to read a request: {error}") from error


def _check_vm_id(vm_id: str) -> None:
    if not vm_id or len(vm_id) > 64 or not all(sign.isalnum() or sign in "-_" for sign in vm_id) or not vm_id.isascii():
        raise InvalidInput(f"failed to read a request: {vm_id[:80]!r} is no VM id", field="vm_id")
