"""The NBD protocol as far as a server for QEMU needs it: fixed newstyle handshake, simple replies. Pure.

Source: doc/proto.md of the NetworkBlockDevice project. Nothing that a client sends is believed: each parser raises
InvalidInput for what makes no sense, and then the connection ends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from ucloud.errors import InvalidInput

MAX_PAYLOAD_BYTES = 32 * 2**20
MAX_OPTION_BYTES = 4096 + 64
_NBD_MAGIC = 0x4E42444D41474943
_OPTION_MAGIC = 0x49484156454F5054
_OPTION_REPLY_MAGIC = 0x0003E889045565A9
_REQUEST_MAGIC = 0x25609513
_REPLY_MAGIC = 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_HAS_FLAGS, _SEND_FLUSH, _SEND_FUA, _SEND_TRIM = 1, 4, 8, 32
TRANSMISSION_FLAGS = _HAS_FLAGS | _SEND_FLUSH | _SEND_FUA | _SEND_TRIM
FUA = 1
_PREFERRED_BLOCK_BYTES = 4096

GREETING = struct.pack(">QQH", _NBD_MAGIC, _OPTION_MAGIC, _FIXED_NEWSTYLE | _NO_ZEROES)
CLIENT_FLAGS_BYTES = 4
OPTION = struct.Struct(">QII")
OPTION_REPLY = struct.Struct(">QIII")
REQUEST = struct.Struct(">IHHQQI")
REPLY = struct.Struct(">IIQ")
_INFO_EXPORT = struct.Struct(">HQH")
_INFO_BLOCKS = struct.Struct(">HIII")


class Option(IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    INFO = 6
    GO = 7


class Answer(IntEnum):
    ACK = 1
    INFO = 3
    UNSUPPORTED = 2**31 + 1
    POLICY = 2**31 + 2
    INVALID = 2**31 + 3
    UNKNOWN = 2**31 + 6


class Command(IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4


class Errno(IntEnum):
    """The protocol's own numbers."""

    OK = 0
    EPERM = 1
    EIO = 5
    EINVAL = 22
    ENOSPC = 28


@dataclass(frozen=True, slots=True)
class Request:
    command: Command
    flags: int
    cookie: int
    offset: int
    length: int


def parse_client_flags(data: bytes) -> bool:
    """Whether the client wants no zeroes behind the answer to EXPORT_NAME."""
    (flags,) = struct.unpack(">I", data)
    if not flags & _FIXED_NEWSTYLE or flags & ~(_FIXED_NEWSTYLE | _NO_ZEROES):
        raise InvalidInput(f"failed to greet a client: its flags {flags:#x} are unknown")
    return bool(flags & _NO_ZEROES)


def parse_option(data: bytes) -> tuple[int, int]:
    """Number and length of an option; its data follow."""
    magic, number, length = OPTION.unpack(data)
    if magic != _OPTION_MAGIC or length > MAX_OPTION_BYTES:
        raise InvalidInput("failed to read an option: a wrong magic or length")
    return number, length


def parse_go(data: bytes) -> str:
    """The name of the export in the data of GO and INFO."""
    try:
        (length,) = struct.unpack_from(">I", data)
        (wishes,) = struct.unpack_from(">H", data, 4 + length)
        name = data[4 : 4 + length].decode("ascii")
    except (struct.error, UnicodeDecodeError) as error:
        raise InvalidInput("failed to read an option: its data are cut short or no text") from error
    if len(data) != 4 + length + 2 + 2 * wishes:
        raise InvalidInput("failed to read an option: its data have a wrong length")
    return name


def parse_request(data: bytes) -> Request:
    magic, flags, kind, cookie, offset, length = REQUEST.unpack(data)
    if magic != _REQUEST_MAGIC:
        raise InvalidInput("failed to read a request: a wrong magic")
    try:
        command = Command(kind)
    except ValueError as error:
        raise InvalidInput(f"failed to read a request: command {kind} is unknown") from error
    if command in (Command.READ, Command.WRITE) and length > MAX_PAYLOAD_BYTES:
        raise InvalidInput(f"failed to read a request: {length} bytes are too many")
    return Request(command, flags, cookie, offset, length)


def reason_refused(request: Request, size_bytes: int) -> Errno:
    """OK, or why a request that was understood cannot be."""
    if request.flags & ~FUA:
        return Errno.EINVAL
    if request.command in (Command.READ, Command.WRITE, Command.TRIM) and request.offset + request.length > size_bytes:
        return Errno.ENOSPC if request.command is Command.WRITE else Errno.EINVAL
    return Errno.OK


def render_option_reply(option: int, answer: Answer, data: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, answer, len(data)) + data


def render_export(option: int, size_bytes: int) -> bytes:
    """The whole answer to GO or INFO."""
    export = _INFO_EXPORT.pack(0, size_bytes, TRANSMISSION_FLAGS)
    blocks = _INFO_BLOCKS.pack(3, 1, _PREFERRED_BLOCK_BYTES, MAX_PAYLOAD_BYTES)
    infos = (render_option_reply(option, Answer.INFO, info) for info in (export, blocks))
    return b"".join((*infos, render_option_reply(option, Answer.ACK)))


def render_old_export(size_bytes: int, *, no_zeroes: bool) -> bytes:
    return struct.pack(">QH", size_bytes, TRANSMISSION_FLAGS) + (b"" if no_zeroes else bytes(124))


def render_reply(cookie: int, error: Errno, data: bytes = b"") -> bytes:
    return REPLY.pack(_REPLY_MAGIC, error, cookie) + data


def render_request(request: Request, data: bytes = b"") -> bytes:
    head = (request.flags, request.command, request.cookie, request.offset, request.length)
    return REQUEST.pack(_REQUEST_MAGIC, *head) + data


def render_go(name: str) -> bytes:
    """What a client says after the greeting: its flags, and GO."""
    data = struct.pack(">I", len(name)) + name.encode("ascii") + struct.pack(">H", 0)
    flags = struct.pack(">I", _FIXED_NEWSTYLE | _NO_ZEROES)
    return flags + OPTION.pack(_OPTION_MAGIC, Option.GO, len(data)) + data


def parse_option_reply(data: bytes) -> tuple[int, int]:
    """Answer and length; for a client."""
    magic, _, answer, length = OPTION_REPLY.unpack(data)
    if magic != _OPTION_REPLY_MAGIC or length > MAX_OPTION_BYTES:
        raise InvalidInput("failed to read an option's answer: a wrong magic or length")
    return answer, length


def parse_size(info: bytes) -> int:
    """The size in an INFO of the kind "export", -1 for other kinds; for a client."""
    if len(info) != _INFO_EXPORT.size:
        return -1
    kind, size_bytes, _ = _INFO_EXPORT.unpack(info)
    return size_bytes if kind == 0 else -1


def parse_reply(data: bytes, cookie: int) -> int:
    """The error number of the answer to a request; for a client."""
    magic, error, answered = REPLY.unpack(data)
    if magic != _REPLY_MAGIC or answered != cookie:
        raise InvalidInput("failed to read an answer: a wrong magic or cookie")
    return int(error)
