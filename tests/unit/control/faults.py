"""A store that loses the answer of one transaction: it was committed, or never arrived, and nobody can tell."""

from __future__ import annotations

from ucloud.errors import OutcomeUnknown
from ucloud.store.api import Committed, Txn
from ucloud.store.memory import MemoryStore


class LossyStore(MemoryStore):
    """The transaction with number ``lost`` (from 0) has no answer; ``arrives`` tells whether it happens all the same.

    It is a second door to the contents of another store.
    """

    def __init__(self, store: MemoryStore, *, lost: int, arrives: bool) -> None:
        super().__init__()
        self._inner = store
        self._lost = lost
        self._arrives = arrives
        self.commits = 0
        for name in ("get", "list", "read", "watch"):
            setattr(self, name, getattr(store, name))

    def commit(self, txn: Txn) -> Committed:
        number, self.commits = self.commits, self.commits + 1
        if number != self._lost:
            return self._inner.commit(txn)
        if self._arrives:
            self._inner.commit(txn)
        raise OutcomeUnknown("failed to commit: no answer came")
