"""The keys that make sums over placements safe: whoever gives something of a host away compares and rewrites one."""

from __future__ import annotations

from ucloud.errors import Conflict
from ucloud.store import keys
from ucloud.store.api import Compare, Store, unchanged

BUDGET_VALUE = b"{}"  # only its revision counts


class Budgets:
    """Law 12: what a host can hold is a sum over placements, made safe by a key that each of them rewrites.

    A budget that was written after the view was taken means placements that the view does not know.
    """

    def __init__(self, store: Store, view_revision: int) -> None:
        self._store = store
        self._view_revision = view_revision
        self._revisions: dict[str, int] = {}

    def compare(self, host_id: str) -> Compare:
        """Holds if nobody has placed anything on the host since the view. Raises Conflict if somebody has."""
        key = keys.budget(host_id)
        if host_id not in self._revisions:
            item = self._store.get(key)
            revision = item.mod_revision if item else 0
            if revision > self._view_revision:
                raise Conflict(f"failed to place on {host_id}: somebody else did meanwhile; decided again")
            self._revisions[host_id] = revision
        return unchanged(key, self._revisions[host_id])

    def written(self, host_id: str, revision: int) -> None:
        self._revisions[host_id] = revision
