"""How far a model's estimates are off, learnt from the usage that comes back. Paces requests; money is never reserved by it.

The trap: a ratio of sums follows the tokens that rate limits count, while a mean of ratios would follow the many short rows. And one absurd usage
(a gateway's zeros, a summary of a whole conversation) must not turn the pace upside down, so each pair counts within a factor of 4 of the estimate.
"""

from __future__ import annotations

_MEMORY = 0.99
"""Weight of what was known before, at each pair: about the last 100 rows count."""
_PRIOR = 5.0
"""Before the first pair it is as if 5 rows of the same size had been estimated rightly."""
_FACTOR = 4


class Learnt:
    """The ratio of actual to estimated input tokens, by model."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def observe(self, model: str, estimate: int, actual: int) -> None:
        """One answered row. Zeros teach nothing: they are how servers say that they did not count."""
        if estimate <= 0 or actual <= 0:
            return
        estimated, counted = self._sums.get(model) or (_PRIOR * estimate, _PRIOR * estimate)
        near = min(max(actual, estimate / _FACTOR), estimate * _FACTOR)
        self._sums[model] = (estimated * _MEMORY + estimate, counted * _MEMORY + near)

    def sums(self, model: str) -> tuple[float, float] | None:
        """(estimated, counted) so far, for the store; None when nothing was seen."""
        return self._sums.get(model)

    def remember(self, model: str, estimated: float, counted: float) -> None:
        """Goes on from an earlier run's sums; what makes no sense is left out."""
        if 0 < estimated < float("inf") and estimated / _FACTOR <= counted <= estimated * _FACTOR:
            self._sums[model] = (estimated, counted)

    def ratio(self, model: str) -> float:
        """What to multiply this model's estimates by; 1.0 until something was seen."""
        sums = self._sums.get(model)
        return 1.0 if sums is None else sums[1] / sums[0]

    def corrected(self, model: str, estimate: int) -> int:
        """An estimate by what was learnt."""
        return round(estimate * self.ratio(model))
