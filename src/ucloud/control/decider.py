"""One pass of the elected process: place, compose, clean, trim. Each step sees what the one before has written."""

from __future__ import annotations

import datetime
import logging
from typing import Any

from ucloud.compose.apply import commit_changes, plan_changes
from ucloud.compose.cleaner import apply_cleaning, plan_cleaning
from ucloud.compose.documents import compose_documents
from ucloud.compose.trim import trim_history
from ucloud.config import Config
from ucloud.errors import StoreUnavailable
from ucloud.scheduler.passes import commit_pass, plan_pass
from ucloud.store.api import Compare, Store
from ucloud.store.cache import Cache
from ucloud.store.view import Doubts, View, build_view
from ucloud.system.clock import Clock, format_time

logger = logging.getLogger(__name__)

CATCH_UP_TIMEOUT_S = 5.0
TRIM_EVERY_S = 600.0
STALE_AFTER_S = 10.0  # the cache hears from the store every 3 s
SILENT_AFTER_S = 60.0


class Decider:
    """Does passes while its process is the leader; ``leader`` is the election's compare."""

    def __init__(self, config: Config, store: Store, cache: Cache[Any], clock: Clock) -> None:
        self._config = config
        self._store = store
        self._cache = cache
        self._clock = clock
        self._trimmed_at_s = float("-inf")
        self._reports: dict[str, tuple[int, float]] = {}

    def run_pass(self, leader: Compare) -> None:
        """Everything that there is to do now. Safe to interrupt anywhere: the next pass sees what is left."""
        if self._cache.age_s() > STALE_AFTER_S:
            raise StoreUnavailable("failed to run a pass: nothing was heard from the store for a while")
        view, doubts = self._view(leader.revision)
        at = format_time(self._clock.now())
        planned = plan_pass(view, self._config.scheduler, at=at, silent=self._silent_hosts(view))
        if planned:
            written_at = commit_pass(
                self._store, planned, view_revision=view.revision, leader=leader, clock=self._clock
            )
            view, doubts = self._view(written_at)
        changes = plan_changes(view, compose_documents(view), doubts=doubts)
        if changes:
            view, doubts = self._view(commit_changes(self._store, changes, leader=leader))
        apply_cleaning(self._store, plan_cleaning(view, doubts), leader=leader, clock=self._clock)
        self._trim(leader)

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
            requests=datetime.timedelta(hours=api.idempotency_hours),
            leader=leader,
        )
