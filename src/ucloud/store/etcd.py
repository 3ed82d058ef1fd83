"""The store on real etcd (3.4 or newer), over its JSON gateway: no compiled parts, small memory.

Owns nothing but its connections. Must hold: all reads are linearizable; a transaction is sent once. Make one
store per process, after any fork, and share it between threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from ucloud.errors import Compacted, StoreError, StoreUnavailable
from ucloud.store import etcd_wire as wire
from ucloud.store.api import LEASE_ENDED, Committed, Item, Lease, Listing, Reading, Txn, Watch
from ucloud.store.etcd_calls import Calls, Credentials, question
from ucloud.store.etcd_members import Tls
from ucloud.store.etcd_watch import EtcdWatch
from ucloud.system.clock import Clock, SystemClock

__all__ = ["Credentials", "EtcdStore", "Tls"]

_FIRST_PAGE = 100
_LARGEST_PAGE = 5000
_PAGE_BYTES = 4 << 20


class EtcdStore:
    """Fulfils ``Store``. ``timeout_s`` limits every call, of a long listing every page."""

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        tls: Tls | None = None,
        credentials: Credentials | None = None,
        timeout_s: float = 5.0,
        clock: Clock | None = None,
    ) -> None:
        self._calls = Calls(endpoints, tls, credentials, timeout_s=timeout_s, clock=clock if clock else SystemClock())

    def get(self, key: str) -> Item | None:
        answer = self._calls.call(question(wire.RANGE, wire.render_get(key)))
        found = answer.get("kvs", ())
        return wire.parse_item(found[0]) if found else None

    def read(self, wanted: Sequence[str]) -> Reading:
        answer = self._calls.call(question(wire.TXN, wire.render_read(wanted)))
        found = wire.parse_read(answer)
        return Reading({key: found.get(key) for key in wanted}, wire.parse_revision(answer), wire.parse_term(answer))

    def list(self, prefix: str, *, revision: int = 0) -> Listing:
        try:
            return self._list(prefix, revision)
        except Compacted:
            if revision:
                raise
        # The history was compacted between two pages: the second time starts at a newer revision.
        return self._list(prefix, 0)

    def _list(self, prefix: str, revision: int) -> Listing:
        items: list[Item] = []
        limit, more = _FIRST_PAGE, True
        while more:
            after = items[-1].key if items else None
            body = wire.render_page(prefix, after, limit=limit, revision=revision)
            answer = self._calls.call(question(wire.RANGE, body))
            page = [wire.parse_item(raw) for raw in answer.get("kvs", ())]
            items += page
            revision = revision or wire.parse_revision(answer)
            more = bool(answer.get("more")) and bool(page)
            limit = _next_limit(page)
        return Listing(tuple(items), revision)

    def commit(self, txn: Txn) -> Committed:
        answer = self._calls.call(question(wire.TXN, wire.render_txn(txn), repeatable=False))
        return Committed(bool(answer.get("succeeded")), wire.parse_revision(answer), wire.parse_term(answer))

    def watch(self, prefix: str, *, from_revision: int) -> Watch:
        if self._calls.is_closed:
            raise StoreUnavailable("failed to watch etcd: the store is closed")
        return EtcdWatch(self._calls, prefix, from_revision)

    def grant_lease(self, ttl_s: int) -> Lease:
        # Repeating is harmless: a lease that nobody knows of ends by itself.
        answer = self._calls.call(question(wire.GRANT, {"TTL": str(ttl_s)}))
        return Lease(int(answer["ID"]), int(answer["TTL"]))

    def keep_lease(self, lease_id: int) -> int:
        answer = self._calls.call(question(wire.KEEP, {"ID": str(lease_id)}))
        return int(answer.get("result", {}).get("TTL", 0))

    def revoke_lease(self, lease_id: int) -> None:
        try:
            self._calls.call(question(wire.REVOKE, {"ID": str(lease_id)}))
        except StoreError as error:
            if error.code != LEASE_ENDED:
                raise

    def compact(self, revision: int) -> None:
        """Drop the history before ``revision``; for tools and tests, members compact by themselves."""
        self._calls.call(question(wire.COMPACT, {"revision": str(revision)}, repeatable=False))

    def close(self) -> None:
        self._calls.close()


def _next_limit(page: Sequence[Item]) -> int:
    """So many keys that the next answer has about _PAGE_BYTES."""
    size = sum(len(item.key) + len(item.value) + 100 for item in page)
    return max(1, min(_LARGEST_PAGE, _PAGE_BYTES * len(page) // max(size, 1)))
