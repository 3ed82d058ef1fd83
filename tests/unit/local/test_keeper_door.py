"""How many strangers of one address a keeper's door hears at once."""

from __future__ import annotations

from ucloud.local.keeper_door import STRANGERS_LIMIT, Strangers


def test_few_of_each_address_and_none_is_remembered() -> None:
    strangers = Strangers()
    assert [strangers.enter("a") for _ in range(STRANGERS_LIMIT + 2)] == [True] * STRANGERS_LIMIT + [False] * 2
    assert strangers.enter("b")
    strangers.leave("a")
    assert strangers.enter("a")
    for address in ["a"] * STRANGERS_LIMIT + ["b"]:
        strangers.leave(address)
    assert strangers._count == {}
