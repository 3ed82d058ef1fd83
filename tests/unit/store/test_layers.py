"""The dictionary with cheap frozen copies behaves as a dict, and its copies never change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ucloud.store.layers import Table

_STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "remove", "copy"]), st.integers(0, 150), st.integers(0, 3)), max_size=400
)


@given(steps=_STEPS)
def test_it_is_a_dict(steps: list[tuple[str, int, int]]) -> None:
    table: Table[int] = Table()
    model: dict[str, int] = {}
    copies = []
    for what, number, value in steps:
        key = str(number)
        if what == "put":
            table.put(key, value)
            model[key] = value
        elif what == "remove":
            table.remove(key)
            model.pop(key, None)
        else:
            copies.append((table.frozen(), dict(model)))
        assert (key in table) == (key in model)
    copies.append((table.frozen(), dict(model)))
    for copy, was in copies:
        assert dict(copy) == was
        assert len(copy) == len(was)
        assert all(copy.get(str(number)) == was.get(str(number)) for number in range(151))
