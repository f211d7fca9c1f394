"""Finds limits that nobody declared: from response headers at once, else from refusals within seconds; then keeps to them.

Headers tell a bucket's limit, what remains and when it is full again, and so its window: `window = reset * limit / used` (protocols G). Without headers the
rate that gets through between two refusals is the limit: the burst that hides it is used up by then. Growth is slow, a fall is at once.
"""

from __future__ import annotations

from batchllm.admit.charging import MINUTE
from batchllm.core.nouns import LimitHint

_MINUTE = 60.0
_DAY = 86_400.0
_NEAR = 0.15
"""How far a window computed from rounded numbers may be off."""
_KEEP = 0.95
"""Of the rate that was seen to pass: what is asked for after a refusal."""
_FALL = 0.7
"""After a refusal that came too soon to measure anything."""
_GROWTH = 0.00025
"""Of the rate, per answer: 200 answers regain what a refusal took. Counted in answers, so that slow limits are refused as rarely as fast ones."""
_ROUND = 150
"""Answers without a refusal after which growth gets faster and faster: the limit is elsewhere."""
_FASTEST = 0.02
_STEP = 8
_ENOUGH = 32
"""Answers before the first refusal from which a rate can be told."""
_LONG = 50
_SOME = 8
"""Answers between two refusals that say something."""
_HALF = 4
_LESS = 0.8
"""Refusals at ever lower rates can't be about the rate: a limit is met within a few, and then again and again at one level. Ever lower is, twice in a row, this part
of the rate of `_HALF` refusals before."""
_LEAP = 4.0
"""Of what passed meanwhile: what is asked for then. If there is a limit as well, a few refusals find it again."""
_SLOWEST = 1 / _MINUTE
"""No provider's limit is lower, and a rate that fell further (by refusals that had nothing to do with it) would take hours to find out."""
_DIMENSIONS = {"requests": "rpm", "tokens": "tpm", "input_tokens": "itpm", "output_tokens": "otpm"}
_PER_DAY = {"requests": "rpd", "tokens": "tpd"}


def _window(hint: LimitHint) -> float | None:
    """Seconds in which the bucket of a header fills; None when that can't be known."""
    limit, remaining, reset = hint.limit, hint.remaining, hint.reset_seconds
    if limit is None or remaining is None or reset is None or remaining >= limit or reset <= 0:
        return None
    return reset * limit / (limit - remaining)


def per_minute(hint: LimitHint) -> float | None:
    """The limit per minute that a header tells; None when its window can't be known or is no minute."""
    if hint.window is not None:
        return float(hint.limit) if hint.window == "minute" and hint.limit else None
    window = _window(hint)
    if window is None or hint.limit is None:
        return None
    if abs(window - _MINUTE) <= _MINUTE * _NEAR:
        return float(hint.limit)
    if abs(window - 1.0) <= _NEAR:
        return hint.limit * _MINUTE
    return None


def per_day(hint: LimitHint) -> float | None:
    """The limit per day that a header tells (Groq's requests: limit 14,400, one used, reset 6 s), by the same arithmetic."""
    if hint.window is not None:
        return float(hint.limit) if hint.window == "day" and hint.limit else None
    window = _window(hint)
    return float(hint.limit) if window is not None and hint.limit is not None and abs(window - _DAY) <= _DAY * _NEAR else None


def dimension_of(hint: LimitHint) -> tuple[str, float] | None:
    """(dimension, limit per minute or per day) of a header; None when its window can't be known."""
    minute = per_minute(hint)
    if minute is not None:
        return (_DIMENSIONS[hint.dimension], minute)
    day = per_day(hint)
    return (_PER_DAY[hint.dimension], day) if day is not None and hint.dimension in _PER_DAY else None


class Finder:
    """What is known of one group's undeclared limits. Arithmetic only; time is an argument."""

    def __init__(self, declared: frozenset[str]) -> None:
        self._declared = declared
        self.told: dict[str, float] = {}
        """Limits that headers told, by dimension."""
        self.rate: float | None = None
        """Requests a second that refusals taught; None: none so far."""
        self._passed = 0
        self._since: float | None = None
        self._trail: list[tuple[float, float]] = []
        """Of the last refusals: the rate (requests a second) that was asked for, and what passed before."""

    def hint(self, dimension: str, limit: float) -> bool:
        """A header (as `dimension_of` reads it). Whether it says something new."""
        if self.told.get(dimension) == limit:
            return False
        self.told[dimension] = limit
        return True

    def passed(self, now: float) -> float | None:
        """An answer came. The new rate (requests a second), when it has grown enough to matter."""
        if self._since is None:
            self._since = now
        self._passed += 1
        if self.rate is None:
            return None
        self.rate *= 1 + min(_FASTEST, _GROWTH * (1 + self._passed / _ROUND) ** 2)
        return self.rate if self._passed % _STEP == 0 else None

    def refused(self, now: float) -> float | None:
        """A refusal episode began. The rate to keep from now on; None when headers or the spec already tell it."""
        if any(name in self._declared or name in self.told for name in MINUTE):
            return None
        seconds = max(0.0 if self._since is None else now - self._since, 1.0)
        if self._at_random(self._passed / seconds):
            self.rate = max(passed for _, passed in self._trail) * _LEAP
            self._trail = []
        elif self.rate is None:
            if self._passed < _ENOUGH:
                # A single "not now" at the start says nothing about a rate; the pause that it asks for is enough.
                return None
            self.rate = self._passed / seconds
        elif self._passed >= _LONG:
            # It held for a while: the edge is near.
            self.rate *= _KEEP
        elif self._passed >= _SOME:
            # The burst that hid the limit is used up, so what passes between two refusals is the limit.
            self.rate = min(self.rate * _KEEP, max(self._passed / seconds, self.rate / 2))
        else:
            self.rate *= _FALL
        self.rate = max(self.rate, _SLOWEST)
        self._passed = 0
        self._since = now
        return self.rate

    def _at_random(self, passed: float) -> bool:
        """Whether refusals have nothing to do with the rate (a gateway that is busy now and then), so that a lower one doesn't help: whoever followed them would
        creep for ever.
        """
        if self.rate is None:
            return False
        self._trail = [*self._trail[-2 * _HALF :], (self.rate, passed)]
        if len(self._trail) <= 2 * _HALF:
            return False
        first, middle, last = (self._trail[at][0] for at in (0, _HALF, 2 * _HALF))
        return last < middle * _LESS and middle < first * _LESS
