"""Model values as JSON with a schema version, and back.

A value is stored as ``{"kind": …, "v": …, "value": {fields}}``. Readers ignore fields they do not know (a newer
writer) and take defaults for missing ones (an older one); where that is not enough, the kind's version is raised and
``UPGRADES`` says how to lift the older form. Golden samples of every version are kept in the tests.
"""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from ucloud.errors import StoreError
from ucloud.model.claim import Claim
from ucloud.model.event import Event
from ucloud.model.guard import Fenced, LifeSign, Members, RunLock, Takeover
from ucloud.model.host import Host
from ucloud.model.image import Image
from ucloud.model.key import Key
from ucloud.model.migration import Migration, MigrationRequest
from ucloud.model.network import Network
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenHost, SeenNetwork, SeenVm
from ucloud.model.vm import Vm
from ucloud.model.wanted import WantedBlob, WantedNetwork, WantedVm

T = TypeVar("T")

# kind → (class, current version)
KINDS: Mapping[str, tuple[type, int]] = {
    "vm": (Vm, 1),
    "network": (Network, 1),
    "image": (Image, 1),
    "key": (Key, 1),
    "host": (Host, 1),
    "placement": (Placement, 1),
    "wanted_vm": (WantedVm, 1),
    "wanted_network": (WantedNetwork, 1),
    "wanted_blob": (WantedBlob, 1),
    "seen_vm": (SeenVm, 1),
    "seen_network": (SeenNetwork, 1),
    "seen_host": (SeenHost, 1),
    "life_sign": (LifeSign, 1),
    "run_lock": (RunLock, 1),
    "fenced": (Fenced, 1),
    "takeover": (Takeover, 1),
    "members": (Members, 1),
    "migration_request": (MigrationRequest, 1),
    "migration": (Migration, 1),
    "event": (Event, 1),
    "claim": (Claim, 1),
}
_KIND_OF = {cls: (kind, version) for kind, (cls, version) in KINDS.items()}

# (kind, version) → the function that makes the fields of version + 1 of them
UPGRADES: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}


def encode(value: Any) -> bytes:
    """The stored form of a value of one of KINDS."""
    kind, version = _KIND_OF[type(value)]
    return json.dumps({"kind": kind, "v": version, "value": to_plain(value)}, separators=(",", ":")).encode()


def decode(data: bytes) -> Any:
    """The value, as an instance of its kind's class. Raises StoreError for anything that is not one."""
    try:
        plain = json.loads(data)
        kind, version, fields_plain = plain["kind"], plain["v"], plain["value"]
        cls, current = KINDS[kind]
        while version < current:
            fields_plain = UPGRADES[kind, version](fields_plain)
            version += 1
        return _reader(cls)(fields_plain)
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"failed to decode a stored value: {type(error).__name__}: {error}", code="bad_stored_value"
        ) from error


def decode_as(cls: type[T], data: bytes) -> T:
    """Like decode, and refuses another kind."""
    value = decode(data)
    if not isinstance(value, cls):
        raise StoreError(f"failed to decode a stored {cls.__name__}: it is a {type(value).__name__}")
    return value


def to_plain(value: Any) -> Any:
    """Dataclasses, enums, tuples and mappings as plain JSON values."""
    if is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (tuple, list)):
        return [to_plain(element) for element in value]
    if isinstance(value, Mapping):
        return {key: to_plain(element) for key, element in value.items()}
    return value


def from_plain(cls: type[T], plain: Any) -> T:
    """The dataclass value that to_plain made ``plain`` of. Raises TypeError, KeyError or ValueError."""
    value: T = _reader(typing.cast(Any, cls))(plain)
    return value


@cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """A function that turns plain JSON into a value of the type ``hint``."""
    if is_dataclass(hint):
        return _dataclass_reader(typing.cast(type, hint))
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is types.UnionType:  # of a type and None
        value_of = _reader(next(one for one in arguments if one is not types.NoneType))
        return lambda plain: None if plain is None else value_of(plain)
    if origin is tuple:
        element = _reader(arguments[0])
        return lambda plain: tuple(element(one) for one in plain)
    if origin is not None and issubclass(origin, Mapping):
        element = _reader(arguments[1])
        return lambda plain: {str(key): element(one) for key, one in plain.items()}
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if hint in (str, int, float, bool):
        return _scalar_reader(hint)
    raise TypeError(f"no reader for {hint}")


def _scalar_reader(cls: type) -> Callable[[Any], Any]:
    accepted = (int, float) if cls is float else cls

    def read(plain: Any) -> Any:
        if not isinstance(plain, accepted) or (cls is not bool and isinstance(plain, bool)):
            raise TypeError(f"expected {cls.__name__}, got {type(plain).__name__}")
        return plain

    return read


def _dataclass_reader(cls: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(cls)
    readers = {field.name: _reader(hints[field.name]) for field in fields(cls)}
    required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}

    def read(plain: Any) -> Any:
        if not isinstance(plain, Mapping):
            raise TypeError(f"expected the fields of {cls.__name__}, got {type(plain).__name__}")
        missing = required - plain.keys()
        if missing:
            raise KeyError(f"{cls.__name__} lacks {', '.join(sorted(missing))}")
        return cls(**{name: reader(plain[name]) for name, reader in readers.items() if name in plain})

    return read


__all__ = ["KINDS", "UPGRADES", "decode", "decode_as", "encode", "from_plain", "to_plain"]
