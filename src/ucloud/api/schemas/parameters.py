"""Queries, headers and paths of requests. Unknown query parameters are refused, unknown headers are not our matter."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ucloud.api.schemas.fields import (
    LABEL_FILTER,
    Account,
    Limit,
    LogBytes,
    Name,
    Sha256,
    WireBool,
    left_out,
    matching,
)
from ucloud.model.meta import DEFAULT_PROJECT

_page_after, _page_schema = matching("^([0-9a-f]{2}){0,150}$", "a page as an earlier answer named it")
_key_after, _key_schema = matching("^[A-Za-z0-9_.:-]{1,128}$", "1 to 128 letters, digits or _.:-")
_label_after, _label_schema = matching(LABEL_FILTER, "key=value")
_word_after, _word_schema = matching("^[a-z_]{1,32}$", "a word")
_event_after, _event_schema = matching("^[0-9a-f]{12}-[0-9a-f]{6}$", "an event's id")

Page = Annotated[str, _page_after, _page_schema]
Word = Annotated[str, _word_after, _word_schema]


class Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoQuery(Query):
    pass


class Sort(StrEnum):
    NAME = "name"
    NAME_DOWN = "-name"
    CREATED = "created_at"
    CREATED_DOWN = "-created_at"


class ListQuery(Query):
    project: Name = left_out()
    name: Name = left_out()
    label: list[Annotated[str, _label_after, _label_schema]] = Field(default=[], max_length=8)
    status: Word = left_out()
    sort: Sort = Sort.NAME
    limit: Limit = 100
    page: Page = ""


class VmListQuery(ListQuery):
    host: Name = left_out()


class EventQuery(Query):
    about: Word = left_out()
    about_id: Name = left_out()
    project: Name = left_out()
    kind: Word = left_out()
    after: Annotated[str, _event_after, _event_schema] = left_out()
    limit: Limit = 100


class WriteQuery(Query):
    dry_run: WireBool = False


class HostDeleteQuery(WriteQuery):
    """``dead``: the host gives no life sign and will never come back."""

    dead: WireBool = False


class LogQuery(Query):
    bytes: LogBytes = 65_536


class UploadQuery(WriteQuery):
    name: Name
    sha256: Sha256 = left_out()
    user: Account = "root"
    project: Name = DEFAULT_PROJECT


class ObjectPath(BaseModel):
    """Ids are opaque: one that does not look like one is simply not found."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str


class Headers(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class PostHeaders(Headers):
    idempotency_key: Annotated[str, _key_after, _key_schema] = Field(default=None, alias="Idempotency-Key")  # type: ignore[assignment]
