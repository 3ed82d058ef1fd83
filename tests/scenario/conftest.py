"""``--write-expected`` writes what happened over every expect.log, to be read in the diff."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-expected", action="store_true", help="write expect.log of the scenarios anew")


@pytest.fixture(autouse=True)
def logs_of_others() -> Iterator[None]:
    """A simulated cloud switches all logs off; the tests after it may want to read theirs."""
    yield
    logging.disable(logging.NOTSET)
