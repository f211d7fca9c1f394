"""The prompt cache of one provider (protocols B.2): what a marked prefix costs to write, and who may read it.

The trap that clients must know: a prefix is there only when its first request has begun to answer. Requests sent at the same time all pay for writing it.
"""

from __future__ import annotations

from dataclasses import replace

from batchllm.core.nouns import Usage
from batchllm.simulator.dialect import Prefix

MINIMUM_TOKENS = 1024
"""A shorter prefix is not cached, and nobody is told."""


class Prefixes:
    """What is in the cache."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[float, float]] = {}
        # key: (there from, gone at), both on the loop's clock

    def used(self, prefixes: tuple[Prefix, ...], usage: Usage, *, now: float, ready: float) -> Usage:
        """The usage with what was read and written. `prefixes`: from the shortest to the longest; `ready`: when this request begins to answer."""
        long_enough = [prefix for prefix in prefixes if prefix.tokens >= MINIMUM_TOKENS]
        if not long_enough:
            return usage
        read = 0
        for prefix in long_enough:
            since, until = self._kept.get(prefix.key, (0.0, 0.0))
            if since <= now < until:
                read = prefix.tokens
                self._kept[prefix.key] = (since, now + prefix.keep_seconds)  # reading keeps it
            elif until <= now:
                self._kept[prefix.key] = (ready, ready + prefix.keep_seconds)
        return replace(usage, cached_input_tokens=read, cache_write_tokens=long_enough[-1].tokens - read)
