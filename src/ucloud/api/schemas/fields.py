"""Field types with their limits, strict: no number as text, no unknown field, no control character.

Each type carries the JSON schema of exactly what it accepts and says in words what is wrong with the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from ucloud.errors import InvalidInput
from ucloud.ipam.plan import parse_ipv4, parse_ipv4_subnet, parse_ipv6, parse_ipv6_prefix

LABELS_LIMIT = 64
USER_DATA_BYTES = 65_536
_ADDRESS_LENGTH = 64

NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
HOST_NAME = "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"
LABEL_KEY = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$"
LABEL_VALUE = "^[A-Za-z0-9 ._:/@=+-]{0,255}$"
LABEL_FILTER = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}=[A-Za-z0-9 ._:/@=+-]{0,255}$"
SHA256 = "^[0-9a-f]{64}$"
ACCOUNT = "^[a-z_][a-z0-9_-]{0,31}$"
_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HEX = "[0-9A-Fa-f]{1,4}"
# Every way to write an IPv6 address but with an embedded IPv4 one: whole, or with "::" for at least one group.
_IPV6 = "|".join(
    (
        f"{_HEX}(:{_HEX}){{7}}",
        f"({_HEX}(:{_HEX}){{0,3}})?::({_HEX}(:{_HEX}){{0,2}})?",
        f"{_HEX}(:{_HEX}){{4,5}}::({_HEX})?",
        f"({_HEX}(:{_HEX}){{0,1}})?::{_HEX}(:{_HEX}){{3,4}}",
    )
)
_URL_HOST = f"([A-Za-z0-9][A-Za-z0-9._-]{{0,252}}|\\[({_IPV6})\\])"
URL = f"^https?://{_URL_HOST}(:{_PORT})?([/?][A-Za-z0-9.:@%_/?&=+~,;!$'()*-]{{0,1700}})?$"
BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4_SUBNET = f"^({_OCTET}\\.){{3}}{_OCTET}/(1[6-9]|2[0-9])$"
IPV6_PREFIX = "^[0-9A-Fa-f]{1,4}(:[0-9A-Fa-f]{1,4}){0,3}::/64$"


class Body(BaseModel):
    """Base of request bodies and of their parts."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def given(self) -> dict[str, Any]:
        """The fields that the request names."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    def digest_bytes(self) -> bytes:
        """Equal for bodies that ask for the same, however they were written."""
        return self.model_dump_json(exclude_unset=True).encode()


class Shown(BaseModel):
    """Base of answers and of their parts."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def matching(pattern: str, words: str, **schema: Any) -> tuple[AfterValidator, WithJsonSchema]:
    """The annotations of a text that matches ``pattern`` wholly; ``words`` say what it should be."""
    compiled = re.compile(pattern.removeprefix("^").removesuffix("$"), re.ASCII)

    def check(value: str) -> str:
        if compiled.fullmatch(value) is None:
            raise PydanticCustomError("invalid_input", "should be {words}", {"words": words})
        return value

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": pattern, **schema})


def _checked(parse: Any) -> AfterValidator:
    """An InvalidInput of a parser as pydantic's error, with its code."""

    def check(value: str) -> str:
        if len(value) > _ADDRESS_LENGTH:
            raise PydanticCustomError("invalid_input", "is too long")
        try:
            return str(parse(value))
        except InvalidInput as error:
            text = f"{error.message.split(': ', 1)[-1]}; {error.hint}" if error.hint else error.message
            raise PydanticCustomError(error.code, "{text}", {"text": text}) from error
        except ValueError as error:
            raise PydanticCustomError("invalid_input", "{text}", {"text": str(error)}) from error

    return AfterValidator(check)


_name_after, _name_schema = matching(NAME, "1 to 63 letters, digits, '-', '.' or '_', with a letter or digit first")
_host_after, _host_schema = matching(HOST_NAME, "a host name: 1 to 63 letters, digits or '-', not '-' at its ends")
_label_after, _label_schema = matching(LABEL_VALUE, "at most 255 letters, digits, spaces or ._:/@=+-")
_sha_after, _sha_schema = matching(SHA256, "a SHA-256 in 64 lower-case hex digits")
_account_after, _account_schema = matching(ACCOUNT, "an account name")
_url_after, _url_schema = matching(URL, "an http or https URL without credentials")
_base64_after, _base64_schema = matching(BASE64, "base64", maxLength=87_384)
_prefix_after, _prefix_schema = matching(IPV6_PREFIX, "a /64 such as fd00:1:2:3::/64")

Name = Annotated[str, _name_after, _name_schema]
HostName = Annotated[str, _host_after, _host_schema]
LabelValue = Annotated[str, _label_after, _label_schema]
Sha256 = Annotated[str, _sha_after, _sha_schema]
Account = Annotated[str, _account_after, _account_schema]
Url = Annotated[str, _url_after, _url_schema]
Base64 = Annotated[str, _base64_after, _base64_schema]
Ipv6Prefix = Annotated[str, _prefix_after, _checked(parse_ipv6_prefix), _prefix_schema]
Ipv4Subnet = Annotated[str, _checked(parse_ipv4_subnet), WithJsonSchema({"type": "string", "pattern": IPV4_SUBNET})]
Ipv4 = Annotated[str, _checked(parse_ipv4), WithJsonSchema({"type": "string", "format": "ipv4"})]
Ipv6 = Annotated[str, _checked(parse_ipv6), WithJsonSchema({"type": "string", "format": "ipv6"})]


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 2.0 is the whole number 2, as its schema says."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Cpus = Annotated[int, Field(ge=1, le=256), BeforeValidator(_whole)]
MemoryMib = Annotated[int, Field(ge=64, le=4 * 1024 * 1024), BeforeValidator(_whole)]
DiskGib = Annotated[int, Field(ge=1, le=64 * 1024), BeforeValidator(_whole)]
Priority = Annotated[int, Field(ge=-100, le=100), BeforeValidator(_whole)]
TimeoutS = Annotated[int, Field(ge=0, le=3600), BeforeValidator(_whole)]


def _labels(value: Mapping[str, str]) -> Mapping[str, str]:
    for key in value:
        if re.fullmatch(LABEL_KEY[1:-1], key) is None:
            raise PydanticCustomError(
                "invalid_input",
                "should have keys of 1 to 63 letters, digits or ._/-, not {key}",
                {"key": repr(key)[:80]},
            )
    return value


Labels = Annotated[
    dict[str, LabelValue],
    Field(max_length=LABELS_LIMIT),
    AfterValidator(_labels),
    WithJsonSchema(
        {
            "type": "object",
            "maxProperties": LABELS_LIMIT,
            "patternProperties": {LABEL_KEY: {"type": "string", "pattern": LABEL_VALUE}},
            "additionalProperties": False,
        }
    ),
]
NO_LABELS: Any = Field(default={})


def _digits(value: Any) -> Any:
    """Text of a query as a number, without what ``int`` would also take."""
    if isinstance(value, str):
        if re.fullmatch("-?(0|[1-9][0-9]{0,17})", value, re.ASCII) is None:
            raise PydanticCustomError("invalid_input", "should be a whole number")
        return int(value)
    return value


def _true_or_false(value: Any) -> Any:
    if isinstance(value, str):
        if value not in ("true", "false"):
            raise PydanticCustomError("invalid_input", "should be true or false")
        return value == "true"
    return value


Limit = Annotated[int, Field(ge=1, le=1000), BeforeValidator(_digits)]
LogBytes = Annotated[int, Field(ge=1, le=1_048_576), BeforeValidator(_digits)]
WireBool = Annotated[bool, BeforeValidator(_true_or_false)]


def left_out() -> Any:
    """The default of an optional field which may be left out but not be null; see ``Body.given``."""
    return Field(default=None)
