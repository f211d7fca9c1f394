"""How long answers get: a quantile that follows what comes back, in constant memory.

Lengths are counted in classes, each an eighth longer than the one before, so a quantile is right to about 13 %, always told by its class's upper end. The trap:
an answer's length says most about its likes; so old answers fade, and a job that changes its prompt is followed within some hundred rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log

_GROWTH = 1.125
_LOG_GROWTH = log(_GROWTH)
_CLASSES = 128
"""The last one begins at about three million tokens."""
_FADE_AT = 2000.0
"""Answers after which all counts are halved."""
_STEP = 16
"""Answers between two looks at the counts: a quantile is asked for with every request."""
ENOUGH = 20
"""Answers from which a quantile means something."""


class Lengths:
    """The lengths of one model's answers."""

    __slots__ = ("_counts", "_due", "_known", "_sum", "seen")

    def __init__(self, counts: Mapping[str, float] | None = None) -> None:
        """`counts`: what `as_counts` gave, from an earlier run; what can't be used is left out."""
        self._counts = [0.0] * _CLASSES
        for name, count in (counts or {}).items():
            if name.isdecimal() and int(name) < _CLASSES and count > 0:
                self._counts[int(name)] = float(count)
        self.seen = sum(self._counts)
        self._sum = sum(count * _GROWTH ** (at - 0.5) for at, count in enumerate(self._counts))
        self._known: dict[float, int] = {}
        self._due = 0

    def observe(self, tokens: int) -> None:
        """One answer of so many tokens. None at all teaches nothing: that is how servers say that they did not count."""
        if tokens <= 0:
            return
        self._counts[min(_CLASSES - 1, ceil(log(tokens) / _LOG_GROWTH))] += 1.0
        self.seen += 1.0
        self._sum += tokens
        self._due -= 1
        if self.seen >= _FADE_AT:
            self._counts = [count / 2 for count in self._counts]
            self.seen /= 2
            self._sum /= 2

    @property
    def mean(self) -> float | None:
        """What answers have on average; None while too few were seen."""
        return self._sum / self.seen if self.seen >= ENOUGH else None

    def quantile(self, part: float) -> int | None:
        """The length that this part of the answers stays within; None while too few were seen."""
        if self.seen < ENOUGH:
            return None
        if self._due <= 0:
            self._known.clear()
            self._due = _STEP
        known = self._known.get(part)
        if known is None:
            known = self._known[part] = self._look(part)
        return known

    def _look(self, part: float) -> int:
        wanted = part * self.seen
        total = 0.0
        last = 0
        for at, count in enumerate(self._counts):
            if not count:
                continue
            total += count
            last = at
            if total >= wanted:
                break
        return ceil(_GROWTH**last)

    def as_counts(self) -> dict[str, float]:
        """For the store: how many answers were in which class."""
        return {str(at): round(count, 3) for at, count in enumerate(self._counts) if count}
