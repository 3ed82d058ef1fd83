"""Bodies of ssh keys."""

from __future__ import annotations

import base64
from typing import Annotated

from ucloud.api.schemas.fields import NO_LABELS, Body, Labels, Name, Shown, left_out, matching
from ucloud.api.schemas.objects import DryRunShown, ListShown, ObjectShown, WordShown
from ucloud.model.meta import DEFAULT_PROJECT

_ENDING = "([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"


def _line(kind: str, *, inner: str, least: int, most: int) -> str:
    """A key line of one kind: the blob begins with the kind again (RFC 4253, 6.6), then has its own bytes.

    ``least`` and ``most`` count whole groups of four base64 digits behind that.
    """
    head = base64.b64encode(len(inner).to_bytes(4) + inner.encode()).decode().rstrip("=")
    whole, part = divmod(len(head) - (1 if (4 + len(inner)) % 3 else 0), 4)
    fixed = head[: whole * 4 + part]
    rest = f"[A-Za-z0-9+/]{{{(4 - part) % 4}}}"
    return f"{kind} {fixed}{rest}([A-Za-z0-9+/]{{4}}){{{least},{most}}}{_ENDING}"


_KINDS = "|".join(
    [
        _line("ssh-ed25519", inner="ssh-ed25519", least=12, most=12),
        _line("ssh-rsa", inner="ssh-rsa", least=86, most=700),
        *(_line(f"ecdsa-sha2-nistp{n}", inner=f"ecdsa-sha2-nistp{n}", least=25, most=60) for n in (256, 384, 521)),
        _line("sk-ssh-ed25519@openssh\\.com", inner="sk-ssh-ed25519@openssh.com", least=12, most=60),
    ]
)
PUBLIC_KEY = f"^({_KINDS})( [A-Za-z0-9@ ._:/+=,-]{{0,255}})?$"
_key_after, _key_schema = matching(
    PUBLIC_KEY,
    "one line of a public key: ssh-ed25519, ssh-rsa (2048 bits or more), ecdsa or sk-ssh-ed25519, and a comment",
)


class KeyCreate(Body):
    name: Name
    project: Name = DEFAULT_PROJECT
    labels: Labels = NO_LABELS
    delete_protection: bool = False
    public_key: Annotated[str, _key_after, _key_schema]


class KeyUpdate(Body):
    name: Name = left_out()
    labels: Labels = left_out()
    delete_protection: bool = left_out()


class KeySpecShown(Shown):
    public_key: str
    fingerprint: str


class KeyShown(ObjectShown[KeySpecShown, WordShown]):
    pass


class KeyPlanned(ObjectShown[KeySpecShown, WordShown]):
    """Without an id if it is not made yet."""

    id: str = ""


class KeyList(ListShown[KeyShown]):
    pass


class KeyDryRun(DryRunShown[KeyPlanned]):
    pass
