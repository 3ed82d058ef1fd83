"""``--write-expected`` writes what happened over every expect.log, to be read in the diff."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-expected", action="store_true", help="write expect.log of the scenarios anew")
