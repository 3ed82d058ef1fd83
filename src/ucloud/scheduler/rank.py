"""How good a host is that could take a VM: a weighted sum of named scores, each between 0 and 1.

To add one: write the function, add it to SCORES with its weight, add a line to its table test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ucloud.model.placement import Score
from ucloud.scheduler.snapshot import Candidate, Resources

ScoreFunction = Callable[[Resources, str, Candidate], float]


def _shares(request: Resources, host: Candidate) -> tuple[float, float, float]:
    """The claimed share of each resource after the VM was placed here."""
    after = host.claimed.plus(request)
    return (
        after.cpus / max(host.capacity.cpus, 1.0),
        after.memory_mib / max(host.capacity.memory_mib, 1),
        after.disk_gib / max(host.capacity.disk_gib, 1),
    )


def _spread(request: Resources, _: str, host: Candidate) -> float:
    """The emptier the host is afterwards, in its scarcest resource, the better."""
    return max(0.0, 1.0 - max(_shares(request, host)))


def _balance(request: Resources, _: str, host: Candidate) -> float:
    """The more evenly its resources are used, the less of one is stranded without the others."""
    shares = _shares(request, host)
    return max(0.0, 1.0 - (max(shares) - min(shares)))


def _image(_: Resources, digest: str, host: Candidate) -> float:
    """The host has the image already."""
    return 1.0 if digest in host.images else 0.0


SCORES: Mapping[str, tuple[float, ScoreFunction]] = {
    "spread": (0.6, _spread),
    "balance": (0.2, _balance),
    "image": (0.2, _image),
}


def score_of(request: Resources, digest: str, host: Candidate) -> Score:
    parts = {name: round(function(request, digest, host), 4) for name, (_, function) in SCORES.items()}
    total = sum(weight * parts[name] for name, (weight, _) in SCORES.items())
    return Score(host.host_id, round(total, 4), parts)
