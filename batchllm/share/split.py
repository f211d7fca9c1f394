"""How a limit is divided: evenly at first; what one doesn't use goes to those who are held up. Pure arithmetic.

The trap is the one who uses nothing just now: with no part at all it could never show that it needs one, so everybody keeps a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

_LEAST = 0.02
"""Of an even part: what the idle keep."""


def split(limit: float, wants: Sequence[float], mosts: Sequence[float]) -> list[float]:
    """Parts of a rate. `wants`: what each could use (inf: all it can get); `mosts`: what each may have at most. The sum is never above the limit."""
    if not wants:
        return []
    least = limit / len(wants) * _LEAST
    first = _fill(limit, [min(max(want, least), most) for want, most in zip(wants, mosts, strict=True)])
    left = limit - math.fsum(first)
    if left <= 0:
        return first
    # More than anybody asks for: spread, so that who suddenly needs more has it at once.
    more = _fill(left, [most - part for part, most in zip(first, mosts, strict=True)])
    return [part + extra for part, extra in zip(first, more, strict=True)]


def split_whole(limit: int, wants: Sequence[float], mosts: Sequence[float]) -> list[int]:
    """Parts of a number of slots, in whole ones. With fewer slots than takers the last ones get none until another leaves."""
    parts = split(float(limit), [max(1.0, want) for want in wants], mosts)
    whole = [math.floor(part + 1e-9) for part in parts]
    left = limit - sum(whole)
    for index in sorted(range(len(parts)), key=lambda index: round(whole[index] - parts[index], 6)):
        if left > 0 and whole[index] + 1 <= mosts[index]:
            whole[index] += 1
            left -= 1
    return whole


def _fill(limit: float, tops: Sequence[float]) -> list[float]:
    """As even as can be, nobody above its top."""
    parts = [0.0] * len(tops)
    left = limit
    order = sorted(range(len(tops)), key=lambda index: tops[index])
    for place, index in enumerate(order):
        parts[index] = max(0.0, min(tops[index], left / (len(order) - place)))
        left -= parts[index]
    return parts
