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
from ucloud.scheduler.passes import commit_pass, plan_pass
from ucloud.store.api import Compare, Store
from ucloud.store.cache import Cache
from ucloud.store.view import View, build_view
from ucloud.system.clock import Clock, format_time

logger = logging.getLogger(__name__)

CATCH_UP_TIMEOUT_S = 5.0
TRIM_EVERY_S = 600.0


class Decider:
    """Does passes while its process is the leader; ``leader`` is the election's compare."""

    def __init__(self, config: Config, store: Store, cache: Cache[Any], clock: Clock) -> None:
        self._config = config
        self._store = store
        self._cache = cache
        self._clock = clock
        self._trimmed_at_s = float("-inf")

    def run_pass(self, leader: Compare) -> None:
        """Everything that there is to do now. Safe to interrupt anywhere: the next pass sees what is left."""
        view, complete = self._view(0)
        at = format_time(self._clock.now())
        planned = plan_pass(view, self._config.scheduler, at=at)
        if planned:
            written_at = commit_pass(self._store, planned, leader=leader, clock=self._clock)
            view, complete = self._view(written_at)
        changes = plan_changes(view, compose_documents(view), complete=complete)
        if changes:
            view, complete = self._view(commit_changes(self._store, changes, leader=leader))
        if complete:
            apply_cleaning(self._store, plan_cleaning(view), leader=leader, clock=self._clock)
        self._trim(leader)

    def _view(self, revision: int) -> tuple[View, bool]:
        """The cloud at ``revision`` or later, and whether all of it could be read (law 5)."""
        snapshot = self._cache.wait_for(revision, CATCH_UP_TIMEOUT_S)
        for key, reason in snapshot.broken.items():
            logger.error("stored value %s is left alone: %s", key, reason)
        decoded = ((key, value, snapshot.items[key].mod_revision) for key, value in snapshot.values.items())
        return build_view(snapshot.revision, decoded), not snapshot.broken

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
