"""QEMU's words about a migration."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.hypervisor.migration_status import MigrationStatus, Transfer, parse_migration

MIB = 1 << 20


def test_progress_and_end() -> None:
    ram = {"total": 256 * MIB, "remaining": 64 * MIB}
    assert parse_migration({"status": "active", "ram": ram}) == MigrationStatus(
        Transfer.ACTIVE, sent_mib=192, total_mib=256
    )
    assert parse_migration({"status": "completed", "downtime": 7}) == MigrationStatus(Transfer.COMPLETED, downtime_ms=7)
    assert parse_migration({"status": "failed", "error-desc": "no"}) == MigrationStatus(Transfer.FAILED, "no")


@pytest.mark.parametrize("word", ["setup", "active", "device", "cancelling", "wait-unplug", "postcopy-active", "new"])
def test_whatever_is_no_end_is_under_way(word: str) -> None:
    assert parse_migration({"status": word}).transfer is Transfer.ACTIVE


@pytest.mark.parametrize("answer", [{}, None, 3, {"status": 7}, {"status": "none"}])
def test_nothing(answer: Any) -> None:
    assert parse_migration(answer) == MigrationStatus()


@given(
    st.dictionaries(st.sampled_from(["status", "ram", "downtime", "error-desc"]), st.none() | st.text() | st.floats())
)
def test_a_broken_qemu_breaks_nothing(answer: dict[str, Any]) -> None:
    assert isinstance(parse_migration(answer), MigrationStatus)
