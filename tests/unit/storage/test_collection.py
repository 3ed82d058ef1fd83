"""Blobs go only by a positive sign."""

from __future__ import annotations

from ucloud.model.image import ImageFormat
from ucloud.storage.collection import plan_collection
from ucloud.storage.pool import StoredBlob

_A, _B, _C, _YOUNG = (
    StoredBlob(letter * 64, ImageFormat.QCOW2, 10, age_s)
    for letter, age_s in zip("abcd", (900, 900, 900, 1), strict=True)
)
_ALL = (_A, _B, _C, _YOUNG)
_EVERY = frozenset(blob.digest for blob in _ALL)
_NONE: frozenset[str] = frozenset()


def test_only_named_blobs_go() -> None:
    plan = plan_collection(
        _ALL, dropped_digests=frozenset({_A.digest}), wanted_digests=_NONE, in_use_digests=_NONE, grace_s=600
    )
    assert plan == (_A,)


def test_an_absent_list_deletes_nothing() -> None:
    assert plan_collection(_ALL, dropped_digests=_NONE, wanted_digests=_NONE, in_use_digests=_NONE) == ()


def test_wanted_used_and_young_blobs_stay() -> None:
    plan = plan_collection(
        _ALL,
        dropped_digests=_EVERY,
        wanted_digests=frozenset({_A.digest}),
        in_use_digests=frozenset({_B.digest}),
        grace_s=600,
    )
    assert plan == (_C,)


def test_an_unreadable_volume_stops_all_collection() -> None:
    assert plan_collection(_ALL, dropped_digests=_EVERY, wanted_digests=_NONE, in_use_digests=None, grace_s=0) == ()


def test_the_plan_of_a_collected_pool_is_empty() -> None:
    arguments = {"dropped_digests": _EVERY, "wanted_digests": _NONE, "in_use_digests": _NONE}
    gone = plan_collection(_ALL, **arguments, grace_s=0)
    assert plan_collection([blob for blob in _ALL if blob not in gone], **arguments, grace_s=0) == ()
