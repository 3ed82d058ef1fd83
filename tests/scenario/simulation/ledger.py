"""What etcd's members have agreed on: keys with revisions, and who watches them. One linear history."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ucloud.store.api import Compare, Delete, Item, Listing, Put, Target, Txn


class Ledger:
    """``on_change`` is told of every change, with the revision: (key, item or None)."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.revision = 1
        self.log: list[tuple[int, str, Item | None]] = []
        self.on_change: Callable[[str, Item | None, int], None] = lambda key, item, revision: None

    def holds(self, compares: Sequence[Compare]) -> bool:
        return all(self._holds(compare) for compare in compares)

    def _holds(self, compare: Compare) -> bool:
        item = self.items.get(compare.key)
        if item is None:
            return compare.revision == 0
        found = item.mod_revision if compare.target is Target.MOD else item.create_revision
        return compare.revision == found

    def apply(self, txn: Txn) -> bool:
        """Whether all compares held, and so all was written."""
        if not self.holds(txn.compares):
            return False
        self.write(txn.writes)
        return True

    def write(self, writes: Sequence[Put | Delete]) -> None:
        revision = self.revision + 1
        changed = False
        for write in writes:
            old = self.items.get(write.key)
            if isinstance(write, Put):
                created = old.create_revision if old else revision
                version = old.version + 1 if old else 1
                item = Item(write.key, write.value, revision, created, version, write.lease)
                self.items[write.key] = item
            elif old is not None:
                item = None
                del self.items[write.key]
            else:
                continue
            changed = True
            self.log.append((revision, write.key, item))
            self.on_change(write.key, item, revision)
        if changed:
            self.revision = revision

    def list(self, prefix: str) -> Listing:
        found = sorted(key for key in self.items if key.startswith(prefix))
        return Listing(tuple(self.items[key] for key in found), self.revision)
