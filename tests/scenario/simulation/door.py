"""The real synchronous code on a store whose answers take time, without threads: a body is run again from its start
with the answers it had so far, and left at its first question that has none yet.

Must hold: a body changes nothing but through its door and what ``restore`` puts back; then each of its steps happens
once, each at the time when the answer before it came, and any of them may be the last.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from typing import Any, cast

from tests.scenario.simulation.engine import Engine, Place
from tests.scenario.simulation.etcd import Cluster
from ucloud.errors import Error, OutcomeUnknown, StoreError, StoreUnavailable
from ucloud.store.api import Committed, Item, Lease, Listing, Reading, Txn, Watch

_MEMBER_TRIES = 2


class Favourite:
    """The member that a process asks first: the one that answered last."""

    def __init__(self, engine: Engine, cluster: Cluster) -> None:
        self._cluster = cluster
        self._index = engine.chance.randrange(len(cluster.members))

    @property
    def name(self) -> str:
        members = list(self._cluster.members)
        return members[self._index % len(members)]

    def next(self) -> None:
        self._index += 1


class _Left(BaseException):
    """The body waits for an answer."""


class Door:
    """A Store, a Clock and a History for one run of one body. ``done`` gets its result or its Error."""

    def __init__(
        self,
        engine: Engine,
        cluster: Cluster,
        *,
        node: str,
        place: Place,
        tell: Callable[..., None],
        favourite: Favourite | None = None,
        timeout_s: float = 1.0,
    ) -> None:
        self._engine, self._cluster = engine, cluster
        self._node, self._place = node, place
        self._tell = tell
        self._timeout_s = timeout_s
        self._answers: list[Any] = []
        self._cursor = 0
        self._favourite = favourite if favourite else Favourite(engine, cluster)
        self._tries = 0

    def run(
        self,
        body: Callable[[Door], Any],
        done: Callable[[Any], None],
        restore: Callable[[], None] = lambda: None,
    ) -> None:
        self._body, self._done, self._restore = body, done, restore
        self._go()

    def _go(self) -> None:
        self._cursor = 0
        self._restore()
        try:
            result = self._body(self)
        except _Left:
            return
        except Error as error:
            result = error
        self._done(result)

    def _next(self) -> Any:
        """The recorded answer, if there is one."""
        answer = self._answers[self._cursor]
        self._cursor += 1
        if isinstance(answer, Error):
            raise answer
        return answer

    def _ask(self, op: str, *arguments: Any) -> Any:
        if self._cursor < len(self._answers):
            return self._next()
        self._send(op, arguments)
        raise _Left

    def _send(self, op: str, arguments: tuple[Any, ...]) -> None:
        member = self._favourite.name

        def answered(answer: Any) -> None:
            again = isinstance(answer, StoreUnavailable) and self._tries < _MEMBER_TRIES
            if isinstance(answer, (StoreUnavailable, OutcomeUnknown)):
                self._favourite.next()
            if again:  # a read, or a write that was refused before it was sent
                self._tries += 1
                self._send(op, arguments)
                return
            self._tries = 0
            self._answers.append(answer)
            self._go()

        self._cluster.ask(self._node, self._place, member, op, arguments, answered, self._timeout_s)

    def _note(self, value: Any) -> Any:
        if self._cursor < len(self._answers):
            return self._next()
        self._answers.append(value)
        self._cursor += 1
        return value

    # Store

    def get(self, key: str) -> Item | None:
        return cast("Item | None", self._ask("get", key))

    def read(self, wanted: Sequence[str]) -> Reading:
        return cast(Reading, self._ask("read", tuple(wanted)))

    def list(self, prefix: str, *, revision: int = 0) -> Listing:
        return cast(Listing, self._ask("list", prefix))

    def commit(self, txn: Txn) -> Committed:
        return cast(Committed, self._ask("commit", txn))

    def grant_lease(self, ttl_s: int) -> Lease:
        return cast(Lease, self._ask("grant_lease", ttl_s))

    def keep_lease(self, lease_id: int) -> int:
        return cast(int, self._ask("keep_lease", lease_id))

    def revoke_lease(self, lease_id: int) -> None:
        self._ask("revoke_lease", lease_id)

    def watch(self, prefix: str, *, from_revision: int) -> Watch:
        raise StoreError("failed to watch: simulated processes have watchers instead")

    def close(self) -> None:
        pass

    # Clock and History

    def monotonic_s(self) -> float:
        return cast(float, self._note(self._engine.now_s))

    def now(self) -> datetime.datetime:
        return cast(datetime.datetime, self._note(self._engine.wall()))

    def sleep(self, duration_s: float) -> None:
        raise StoreError("failed to sleep: nothing waits in a simulated process")

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        if self._cursor < len(self._answers):
            self._next()
            return
        self._tell(kind, **facts)
        self._note(None)
