"""Says so when a part of the budget is spent (`budget.alerts`): once per fraction, and never again on a resume that begins above it."""

from __future__ import annotations

from collections.abc import Sequence

from batchllm.admit import Purse
from batchllm.core.events import Listener, Note
from batchllm.core.money import text_usd


class Alerts:
    """Looked at a few times a second; pure arithmetic on the purse."""

    def __init__(self, fractions: Sequence[float], purse: Purse, listener: Listener) -> None:
        self._purse = purse
        self._listener = listener
        self._left = sorted(fraction for fraction in fractions if not self._passed(fraction))

    def _passed(self, fraction: float) -> bool:
        cap = self._purse.cap_pico
        return cap is not None and cap > 0 and self._purse.spent_pico >= fraction * cap

    def look(self) -> None:
        """Tells the highest fraction that was newly passed."""
        passed = [fraction for fraction in self._left if self._passed(fraction)]
        if not passed:
            return
        self._left = [fraction for fraction in self._left if fraction not in passed]
        cap = self._purse.cap_pico
        assert cap is not None
        self._listener(Note(level="warning", text=f"{passed[-1]:.0%} of the budget is spent: {text_usd(self._purse.spent_pico)} of {text_usd(cap)}"))
