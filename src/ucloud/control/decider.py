"""One pass of the elected process: lost hosts, placements, migrations, documents, ends, trims. Each step sees what the
one before has written.
"""

from __future__ import annotations

import datetime
import logging
from typing import Any

from ucloud.compose.apply import commit_changes, plan_changes
from ucloud.compose.cleaner import apply_cleaning, plan_cleaning
from ucloud.compose.documents import compose_documents
from ucloud.compose.hosts import plan_old_marks
from ucloud.compose.trim import trim_history, trim_marks
from ucloud.config import Config
from ucloud.control.pool_fencing import PoolFencing
from ucloud.control.takeover import Takeovers
from ucloud.errors import StoreUnavailable
from ucloud.model.claim import REQUEST_KEPT
from ucloud.scheduler.commit import commit_pass
from ucloud.scheduler.drain import draining_hosts, must_stop, to_place_anew
from ucloud.scheduler.migrations import plan_migrations
from ucloud.scheduler.passes import plan_pass
from ucloud.scheduler.steps import commit_migrations
from ucloud.store.api import Compare, Store
from ucloud.store.cache import Cache
from ucloud.store.view import Doubts, View, build_view
from ucloud.system.clock import Clock, format_time
from ucloud.system.history import History, Silence

logger = logging.getLogger(__name__)

RESYNC_S = 5.0
CATCH_UP_TIMEOUT_S = 5.0
TRIM_EVERY_S = 600.0
STALE_AFTER_S = 10.0  # the cache hears from the store every 3 s
SILENT_AFTER_S = 60.0


class Decider:
    """Does passes while its process is the leader; ``leader`` is the election's compare."""

    def __init__(
        self,
        config: Config,
        store: Store,
        cache: Cache[Any],
        clock: Clock,
        *,
        pools: PoolFencing | None = None,
        history: History | None = None,
    ) -> None:
        self._config = config
        self._store = store
        self._cache = cache
        self._clock = clock
        self._history = history if history else Silence()
        self._takeovers = Takeovers(store, config.scheduler, clock, pools=pools, history=self._history)
        self._trimmed_at_s = float("-inf")
        self._reports: dict[str, tuple[int, float]] = {}

    def run_pass(self, leader: Compare) -> float:
        """Everything that there is to do now; in how many seconds to come again without a cause.

        Safe to interrupt anywhere: the next pass sees what is left.
        """
        if self._cache.age_s() > STALE_AFTER_S:
            raise StoreUnavailable("failed to run a pass: nothing was heard from the store for a while")
        view, doubts = self._view(leader.revision)
        takeovers = self._takeovers.run(view, leader)
        if takeovers.revision:
            view, doubts = self._view(takeovers.revision)
        silent = self._silent_hosts(view)
        written_at = self._place(view, silent, leader)
        if written_at:
            view, doubts = self._view(written_at)
        written_at = self._migrate(view, silent, leader)
        if written_at:
            view, doubts = self._view(written_at)
        written_at = self._compose(view, doubts, silent, leader)
        if written_at:
            view, doubts = self._view(written_at)
        endings = plan_cleaning(view, doubts)
        apply_cleaning(self._store, endings, leader=leader, clock=self._clock)
        trim_marks(self._store, plan_old_marks(view), leader=leader)
        self._trim(leader)
        return min(RESYNC_S, takeovers.again_s)

    def _place(self, view: View, silent: frozenset[str], leader: Compare) -> int:
        at = format_time(self._clock.now())
        planned = plan_pass(view, self._config.scheduler, at=at, silent=silent, movable=to_place_anew(view))
        return commit_pass(
            self._store, planned, view_revision=view.revision, leader=leader, clock=self._clock, history=self._history
        )

    def _migrate(self, view: View, silent: frozenset[str], leader: Compare) -> int:
        steps = plan_migrations(view, self._config.scheduler, self._clock.now(), silent=silent)
        return commit_migrations(
            self._store, steps, view_revision=view.revision, leader=leader, clock=self._clock, history=self._history
        )

    def _compose(self, view: View, doubts: Doubts, silent: frozenset[str], leader: Compare) -> int:
        settings = self._config.scheduler
        stops = (must_stop(view, host_id, settings, silent=silent) for host_id in draining_hosts(view))
        documents = compose_documents(view, settings, must_stop=frozenset[str]().union(*stops))
        return commit_changes(self._store, plan_changes(view, documents, doubts=doubts), leader=leader)

    def _silent_hosts(self, view: View) -> frozenset[str]:
        """Hosts whose report has not changed for SILENT_AFTER_S, by this process's own clock."""
        now_s = self._clock.monotonic_s()
        for host_id, report in view.seen_hosts.items():
            revision, _ = self._reports.get(host_id, (0, 0.0))
            if revision != report.mod_revision:
                self._reports[host_id] = (report.mod_revision, now_s)
        self._reports = {host_id: self._reports[host_id] for host_id in view.seen_hosts}
        return frozenset(host_id for host_id, (_, at_s) in self._reports.items() if now_s - at_s > SILENT_AFTER_S)

    def _view(self, revision: int) -> tuple[View, Doubts]:
        """The cloud at ``revision`` or later, and what of it could not be read."""
        snapshot = self._cache.wait_for(revision, CATCH_UP_TIMEOUT_S)
        for key, reason in snapshot.broken.items():
            logger.error("stored value %s is left alone: %s", key, reason)
        decoded = ((key, value, snapshot.items[key].mod_revision) for key, value in snapshot.values.items())
        return build_view(snapshot.revision, decoded), Doubts(frozenset(snapshot.broken))

    def _trim(self, leader: Compare) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._trimmed_at_s < TRIM_EVERY_S:
            return
        self._trimmed_at_s = now_s
        api = self._config.api
        trim_history(
            self._store,
            now=self._clock.now(),
            events=datetime.timedelta(days=api.event_days),
            requests=REQUEST_KEPT,
            leader=leader,
        )
