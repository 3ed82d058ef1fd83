"""Stored values keep their meaning: round trips, golden samples of every version, and clear refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit import samples
from ucloud.errors import StoreError
from ucloud.model.vm import Vm
from ucloud.store.codec import KINDS, decode, decode_as, encode

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("value", samples.ALL, ids=lambda value: type(value).__name__)
def test_round_trip(value: object) -> None:
    assert decode(encode(value)) == value


def test_there_is_a_sample_of_every_kind() -> None:
    assert {type(value) for value in samples.ALL} == {cls for cls, _ in KINDS.values()}


@pytest.mark.parametrize("value", samples.ALL, ids=lambda value: type(value).__name__)
def test_golden_sample_of_this_version(value: object) -> None:
    """If this fails, the stored form has changed: raise the kind's version, add an upgrade, keep the old sample."""
    plain = json.loads(encode(value))
    golden = GOLDEN / f"{plain['kind']}.v{plain['v']}.json"
    assert json.loads(golden.read_text()) == plain


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.name)
def test_every_golden_sample_can_be_read(path: Path) -> None:
    decode(path.read_bytes())


def test_unknown_fields_are_ignored_and_missing_ones_defaulted() -> None:
    plain = json.loads(encode(samples.VM))
    plain["value"]["spec"].pop("boots")
    plain["value"]["spec"]["from_the_future"] = 1
    assert decode(json.dumps(plain).encode()) == samples.VM


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"kind":"vm","v":1,"value":{}}',
        b'{"kind":"nonsense","v":1,"value":{}}',
        b'{"kind":"vm","v":"1","value":{}}',
        b'{"kind":"claim","v":1,"value":{"owner_id":5,"at":""}}',
    ],
)
def test_what_is_no_value_is_refused(data: bytes) -> None:
    with pytest.raises(StoreError, match="failed to decode"):
        decode(data)


def test_another_kind_is_refused() -> None:
    with pytest.raises(StoreError, match="it is a Claim"):
        decode_as(Vm, encode(samples.CLAIM))
