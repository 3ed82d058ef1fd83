"""The NBD protocol: what we render is what we parse, and no bytes of a client lead anywhere but to InvalidInput."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.errors import InvalidInput
from ucloud.storage.service import nbd
from ucloud.storage.service.nbd import Command, Errno, Request

REQUESTS = st.builds(
    Request,
    command=st.sampled_from(Command),
    flags=st.integers(0, 2**16 - 1),
    cookie=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**64 - 1),
    length=st.integers(0, 2**32 - 1),
)


@given(REQUESTS)
def test_requests_come_back(request: Request) -> None:
    data = nbd.render_request(request)
    if request.command in (Command.READ, Command.WRITE) and request.length > nbd.MAX_PAYLOAD_BYTES:
        with pytest.raises(InvalidInput):
            nbd.parse_request(data)
    else:
        assert nbd.parse_request(data) == request


@given(REQUESTS, st.integers(0, 2**40))
def test_nothing_outside_the_disk_is_touched(request: Request, size_bytes: int) -> None:
    touches = request.command in (Command.READ, Command.WRITE, Command.TRIM)
    if touches and nbd.reason_refused(request, size_bytes) is Errno.OK:
        assert request.offset + request.length <= size_bytes


@given(st.binary(min_size=nbd.REQUEST.size, max_size=nbd.REQUEST.size))
def test_no_bytes_break_the_parser_of_requests(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert nbd.render_request(nbd.parse_request(data)) == data


@given(st.binary(min_size=nbd.OPTION.size, max_size=nbd.OPTION.size))
def test_no_bytes_break_the_parser_of_options(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert nbd.parse_option(data)[1] <= nbd.MAX_OPTION_BYTES


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser_of_go(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert len(nbd.parse_go(data)) <= len(data)


@given(st.binary(min_size=4, max_size=4))
def test_no_bytes_break_the_parser_of_flags(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert nbd.parse_client_flags(data) == bool(data[3] & 2)


@given(st.text(st.characters(max_codepoint=127), max_size=100))
def test_an_exports_name_comes_back(name: str) -> None:
    data = nbd.render_go(name)[nbd.CLIENT_FLAGS_BYTES :]
    number, length = nbd.parse_option(data[: nbd.OPTION.size])
    assert number == nbd.Option.GO
    assert len(data) == nbd.OPTION.size + length
    assert nbd.parse_go(data[nbd.OPTION.size :]) == name
