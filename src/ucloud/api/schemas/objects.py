"""What all objects and all answers have in common."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import Field

from ucloud.api.schemas.fields import Shown

Spec = TypeVar("Spec")
Status = TypeVar("Status")
Thing = TypeVar("Thing")


class ConditionShown(Shown):
    type: str
    status: bool
    reason: str
    since: str
    until: str


class ObjectShown(Shown, Generic[Spec, Status]):
    id: str
    name: str
    project: str
    labels: dict[str, str]
    generation: int
    created_at: str
    deleted_at: str
    delete_protection: bool
    spec: Spec
    status: Status
    conditions: list[ConditionShown]


class ListShown(Shown, Generic[Thing]):
    items: list[Thing]
    next_page: str
    revision: int


class DryRunShown(Shown, Generic[Thing]):
    """``would`` says what the request would do; nothing was written."""

    dry_run: bool
    would: str
    object: Thing


class WordShown(Shown):
    word: str


class ProblemShown(Shown):
    """RFC 9457. ``code`` is stable, ``field`` the dotted path of what is wrong, ``users`` who still needs it."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    hint: str
    request_id: str
    field: str = ""
    users: list[str] = Field(default=[])
