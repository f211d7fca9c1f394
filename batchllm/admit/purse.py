"""The purse: `spent + reserved <= cap` at every instant. Integers only (pico-dollars; `allowance` says what else a purse may count).

Real and simulated dollars have a purse each. What is possibly billed (crashes, timeouts, answers without usage) stays in `reserved` until the user settles it.
"""

from __future__ import annotations

from collections.abc import Callable

Lender = Callable[[int, int, int], int]
"""(cap, what is spent and reserved of it here, what is needed besides) -> what may be spent and reserved here from now on."""


class Purse:
    """The money of one run, on top of what the store says was spent and is still reserved."""

    __slots__ = (
        "_ceiling_pico",
        "_elsewhere_pico",
        "_leased_pico",
        "asides",
        "cap_pico",
        "held_pico",
        "holders",
        "least_pico",
        "lender",
        "lowered",
        "pinned_pico",
        "spent_pico",
    )

    def __init__(self, *, cap_pico: int | None, spent_pico: int, pinned_pico: int) -> None:
        self.cap_pico = cap_pico
        self.spent_pico = spent_pico
        self.pinned_pico = pinned_pico
        """Reserved for attempts that may have been billed; only `settle` frees it."""
        self.held_pico = 0
        """Reserved for attempts in flight."""
        self.holders = 0
        """Attempts in flight: as long as there are some, money may come back."""
        self.lowered = False
        """Whether the cap was set below what was spent and reserved at that moment."""
        self._ceiling_pico = 0
        """Under a lowered cap: what is in flight may still reach this; it only falls."""
        self.least_pico: int | None = None
        """The smallest reservation so far: whether what is left may still be of use."""
        self.lender: Lender | None = None
        """Where other runs pay from the same cap: who lends parts of it."""
        self._leased_pico = 0
        self._elsewhere_pico = 0
        self.asides = 0
        """Requests set aside since the last one passed, because what is left is too little for them."""

    @property
    def reserved_pico(self) -> int:
        """All that is held back from the cap without being spent."""
        return self.pinned_pico + self.held_pico

    @property
    def left_pico(self) -> int | None:
        """What may still be reserved; None without a cap."""
        return None if self.cap_pico is None else (self.cap_pico if self.lender is None else min(self.cap_pico, self._leased_pico)) - self._total_pico

    def fits(self, pico: int) -> bool:
        """Whether a reservation keeps the promise; where the cap is shared, a new lease is asked for if it has to be."""
        if self.cap_pico is None:
            return True
        total = self.spent_pico + self.pinned_pico + self.held_pico
        if self.lender is None or total + pico > self.cap_pico:
            return total + pico <= self.cap_pico
        if total + pico > self._leased_pico:
            self._leased_pico = self.lender(self.cap_pico, total, pico)
        return total + pico <= self._leased_pico

    @property
    def elsewhere_pico(self) -> int:
        """What other runs have of a cap that is shared; once this one borrows no more, what they had then."""
        if self.lender is None or self.cap_pico is None:
            return self._elsewhere_pico
        # What could be had now isn't theirs; it is given back at once.
        most = self.lender(self.cap_pico, self._total_pico, max(0, self.cap_pico - self._total_pico))
        self.give_back()
        return max(0, self.cap_pico - most)

    def leave(self) -> None:
        """Borrows no more."""
        self._elsewhere_pico, self.lender = self.elsewhere_pico, None

    def give_back(self) -> None:
        """Keeps no more of a lease than it would be given anew."""
        if self.lender is not None and self.cap_pico is not None:
            self._leased_pico = self.lender(self.cap_pico, self._total_pico, 0)

    def set_cap(self, cap_pico: int | None) -> None:
        """Another cap from now on. What is in flight keeps its reservation, also where a lowered cap no longer covers it."""
        self.cap_pico = cap_pico
        self.lowered = cap_pico is not None and self._total_pico > cap_pico
        self._ceiling_pico = self._total_pico if self.lowered else 0

    def settle_pinned(self, pico: int, *, cost_pico: int) -> None:
        """Possibly billed attempts were settled by the user's word: so much is no longer held back, so much was spent."""
        self.pinned_pico -= pico
        self.spent_pico += cost_pico

    def hold(self, pico: int) -> None:
        """Reserves; the caller has asked `fits`."""
        self.held_pico += pico
        self.holders += 1
        self.asides = 0
        if self.least_pico is None or pico < self.least_pico:
            self.least_pico = pico

    def pin(self, pico: int) -> None:
        """Holds more back than was reserved: what may have been billed keeps its worst case, also where less was reserved (`reserve: learned`)."""
        self.pinned_pico += pico

    def settle(self, pico: int, *, cost_pico: int | None, maybe: bool) -> None:
        """Ends a reservation: the truth is booked even above it; `maybe` keeps it pinned."""
        self.held_pico -= pico
        self.holders -= 1
        if maybe:
            self.pinned_pico += pico
        elif cost_pico is not None:
            self.spent_pico += cost_pico
        if self._ceiling_pico and self._total_pico < self._ceiling_pico:
            self._ceiling_pico = self._total_pico

    @property
    def _total_pico(self) -> int:
        return self.spent_pico + self.pinned_pico + self.held_pico

    @property
    def overdrawn(self) -> bool:
        """Whether the truth went past the cap (a provider that bills above the bound, or a cap that was lowered). What is merely held may still come back under
        a lowered cap.
        """
        if self.cap_pico is None:
            return False
        return self.spent_pico + self.pinned_pico > self.cap_pico or self._total_pico > max(self.cap_pico, self._ceiling_pico)
