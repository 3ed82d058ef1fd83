"""``ucloud up`` refuses at once what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from ucloud.errors import InvalidInput
from ucloud.local.lifecycle import up


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="File name too long") as caught:
        up(tmp_path / ("x" * 300), timeout_s=1, say=lambda _: None)
    assert "--directory" in caught.value.hint
