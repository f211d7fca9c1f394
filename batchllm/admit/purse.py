"""The purse: `spent + reserved <= cap` at every instant. Integers only (pico-dollars).

Real and simulated dollars have a purse each. What is possibly billed (crashes, timeouts, answers without usage) stays in `reserved` until the user settles it.
"""

from __future__ import annotations


class Purse:
    """The money of one run, on top of what the store says was spent and is still reserved."""

    __slots__ = ("cap_pico", "held_pico", "holders", "pinned_pico", "spent_pico")

    def __init__(self, *, cap_pico: int | None, spent_pico: int, pinned_pico: int) -> None:
        self.cap_pico = cap_pico
        self.spent_pico = spent_pico
        self.pinned_pico = pinned_pico
        """Reserved for attempts that may have been billed; only `settle` frees it."""
        self.held_pico = 0
        """Reserved for attempts in flight."""
        self.holders = 0
        """Attempts in flight: as long as there are some, money may come back."""

    @property
    def reserved_pico(self) -> int:
        """All that is held back from the cap without being spent."""
        return self.pinned_pico + self.held_pico

    def fits(self, pico: int) -> bool:
        """Whether a reservation keeps the promise."""
        return self.cap_pico is None or self.spent_pico + self.pinned_pico + self.held_pico + pico <= self.cap_pico

    def hold(self, pico: int) -> None:
        """Reserves; the caller has asked `fits`."""
        self.held_pico += pico
        self.holders += 1

    def settle(self, pico: int, *, cost_pico: int | None, maybe: bool) -> None:
        """Ends a reservation: the truth is booked even above it; `maybe` keeps it pinned."""
        self.held_pico -= pico
        self.holders -= 1
        if maybe:
            self.pinned_pico += pico
        elif cost_pico is not None:
            self.spent_pico += cost_pico

    @property
    def overdrawn(self) -> bool:
        """Whether the truth went past the cap (a provider that bills above the bound, or a cap that was lowered)."""
        return self.cap_pico is not None and self.spent_pico + self.pinned_pico + self.held_pico > self.cap_pico
