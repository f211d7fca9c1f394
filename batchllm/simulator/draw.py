"""Chance without a generator: every number is read from a hash of a key, so that the same key always gives the same numbers, in any order of asking.

The trap this avoids: a shared `random.Random` makes an answer depend on who asked before.
"""

from __future__ import annotations

import math
from hashlib import shake_256

_BLOCK = 272  # two blocks of SHAKE-256's rate: enough for most answers in one call


class Draw:
    """A stream of numbers that belongs to one key."""

    __slots__ = ("_at", "_bytes", "_key")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._bytes = shake_256(key).digest(_BLOCK)
        self._at = 0

    def take(self, count: int) -> bytes:
        """The next bytes of the stream."""
        end = self._at + count
        if end > len(self._bytes):
            # SHAKE's longer output starts with the shorter one, so the stream just goes on.
            self._bytes = shake_256(self._key).digest(max(end, 2 * len(self._bytes)))
        piece = self._bytes[self._at : end]
        self._at = end
        return piece

    def below(self, limit: int) -> int:
        """A whole number from 0 to limit - 1."""
        return int.from_bytes(self.take(4)) % limit

    def unit(self) -> float:
        """A number from 0 (with) to 1 (without)."""
        return int.from_bytes(self.take(6)) / 2**48

    def chance(self, probability: float) -> bool:
        """True with this probability; takes from the stream either way."""
        return self.unit() < probability

    def log_normal(self, median: float, sigma: float) -> float:
        """A positive number whose logarithm is normal (Box-Muller)."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.unit()))
        return median * math.exp(sigma * radius * math.cos(2.0 * math.pi * self.unit()))
