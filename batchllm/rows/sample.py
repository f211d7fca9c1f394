"""Samples that stay the same from run to run: whether a row is in depends on its id alone, not on its place or on chance."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from hashlib import blake2b


def _rank(identity: str) -> int:
    return int.from_bytes(blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def chosen(identity: str, fraction: float) -> bool:
    """Whether a row is in a sample of this fraction (0.01 is 1 %). A larger sample holds every smaller one."""
    return _rank(identity) < fraction * 2**64


def smallest(count: int, identities: Iterable[str]) -> frozenset[int]:
    """The places (from 0, in the order given) of the `count` rows that come first by hash; memory grows with `count` only.

    Rows of equal identity come in the order of their places, so that the count is exact. A larger sample holds every smaller one.
    """
    return frozenset(place for _, place in heapq.nsmallest(count, ((_rank(identity), place) for place, identity in enumerate(identities))))
