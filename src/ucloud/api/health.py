"""Whether this API works and what is behind it; answered without a token, so it must cost nothing."""

from __future__ import annotations

import ucloud
from ucloud.api.answers import Answer
from ucloud.api.site import Site
from ucloud.errors import StoreUnavailable

_CACHE_AGE_LIMIT_S = 10.0


def get_version(site: Site) -> Answer:
    """Show the versions of the program and of the API."""
    return Answer({"version": ucloud.__version__, "api": "v1"})


def get_health(site: Site) -> Answer:
    """Tell whether the cloud works: ok, degraded (some part is missing) or down (this API cannot serve)."""
    store = site.probe.reason()
    age_s = min(site.cache.age_s(), 86_400.0)
    filled, scheduler, alive = True, False, 0
    try:
        scheduler, alive = site.has_scheduler(), len(site.view().alive)
    except StoreUnavailable:
        filled = False
    parts = {
        "store": _part(store),
        "cache": {
            **_part("" if age_s < _CACHE_AGE_LIMIT_S else "it has not heard from the store"),
            "age_s": round(age_s, 3),
        },
        "scheduler": _part("" if scheduler else "none is elected"),
        "hosts": {**_part("" if alive else "none is alive"), "alive": alive},
    }
    word = "down" if store or not filled else "ok" if all(part["ok"] for part in parts.values()) else "degraded"
    return Answer({"word": word, "parts": parts}, 503 if word == "down" else 200)


def _part(reason: str) -> dict[str, object]:
    return {"ok": not reason, "reason": reason}
