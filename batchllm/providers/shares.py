"""What a request for many inputs used, shared out among them.

The parts add up to the whole exactly: a bill that is split must stay the same bill.
"""

from __future__ import annotations

from collections.abc import Sequence

from batchllm.core.nouns import Usage


def shares(total: int, sizes: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to `sizes` (alike when all are 0), what is left over going to the first ones."""
    whole = sum(sizes)
    parts = [total * size // whole if whole else total // len(sizes) for size in sizes]
    for place in range(total - sum(parts)):
        parts[place % len(parts)] += 1
    return parts


def shared_usage(usage: Usage | None, sizes: Sequence[int]) -> list[Usage | None]:
    """The usage of each input; None for all when the request's own is not known."""
    if usage is None:
        return [None] * len(sizes)
    return [
        Usage(input_tokens=read, output_tokens=made, cached_input_tokens=min(read, cached))
        for read, made, cached in zip(
            shares(usage.input_tokens, sizes), shares(usage.output_tokens, sizes), shares(usage.cached_input_tokens, sizes), strict=True
        )
    ]
