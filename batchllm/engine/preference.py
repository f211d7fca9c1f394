"""`prefer`: in which order the models of a chain are asked - as routed, the cheapest first, or the one that answers fastest.

The trap: what isn't known is not zero. A model without a price comes last; one that hasn't answered yet comes first, or nothing would ever be known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane

_INPUT_TOKENS, _OUTPUT_TOKENS = 1000, 300
"""A usual request, to compare prices by."""


def ordered(lanes: Sequence[Lane], prefer: Literal["order", "cheapest", "fastest"], utc: float) -> tuple[Lane, ...]:
    """The lanes in the order in which a row asks them; those that are alike stay as routed."""
    if prefer == "order" or len(lanes) < 2:
        return tuple(lanes)
    if prefer == "fastest":
        return tuple(sorted(lanes, key=lambda lane: lane.latency_seconds or 0.0))
    return tuple(sorted(lanes, key=lambda lane: _price(lane, utc)))


def _price(lane: Lane, utc: float) -> tuple[bool, int]:
    prices = lane.prices(utc)
    return (prices is None, prices.worst(_INPUT_TOKENS, _OUTPUT_TOKENS) if prices is not None else 0)
