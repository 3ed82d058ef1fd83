"""A taken address, name, number or idempotency key: made create-if-absent, so that nothing is given twice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

REQUEST_KEPT = timedelta(hours=24)  # how long an idempotency key is remembered


@dataclass(frozen=True, slots=True)
class Claim:
    """``owner_id`` is the object that took it. ``digest`` is the request body's, for idempotency keys only."""

    owner_id: str
    at: str
    digest: str = ""
