"""A public ssh key."""

from __future__ import annotations

from dataclasses import dataclass

from ucloud.model.meta import Meta


@dataclass(frozen=True, slots=True)
class KeySpec:
    """``public_key`` is one authorized_keys line; ``fingerprint`` is ``SHA256:…`` as ssh-keygen prints it."""

    public_key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Key:
    meta: Meta
    spec: KeySpec
