"""Full-jitter exponential backoff: everybody who failed together comes back apart (protocols F, rule 1)."""

from __future__ import annotations

import random

_LARGEST_POWER = 60
"""2^60 times any base is beyond every cap; larger powers would only overflow a float."""


def full_jitter(k: int, initial_seconds: float, max_seconds: float, rng: random.Random) -> float:
    """Seconds before the next try after `k` earlier waits (the first wait has k = 0): uniform between 0 and min(max_seconds, initial_seconds * 2^k)."""
    return rng.uniform(0.0, min(max_seconds, initial_seconds * 2.0 ** min(max(k, 0), _LARGEST_POWER)))
