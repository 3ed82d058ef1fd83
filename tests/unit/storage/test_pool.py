"""Names and numbers of a pool."""

from __future__ import annotations

import pytest

from ucloud.errors import Exhausted, InvalidInput
from ucloud.storage.pool import PoolUsage, check_digest, check_room, check_volume_id


@pytest.mark.parametrize("text", ["", "abc", "A" * 64, "../" + "a" * 61, "a" * 63 + "\n", "a" * 65])
def test_only_a_digest_is_a_digest(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_digest(text)


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "../x", "-x", "a\0", "x" * 64, "a\n"])
def test_a_volume_id_is_no_path(text: str) -> None:
    with pytest.raises(InvalidInput):
        check_volume_id(text)


def test_the_reserve_is_not_for_newcomers() -> None:
    check_room(PoolUsage(1000, 200, 50), needed_bytes=150, what="test")
    for usage, needed in ((PoolUsage(1000, 49, 50), 0), (PoolUsage(1000, 200, 50), 151)):
        with pytest.raises(Exhausted) as caught:
            check_room(usage, needed_bytes=needed, what="test")
        assert caught.value.code == "pool_near_full"
