"""An allowance: one cap of a budget - dollars or tokens, for the store's whole life, a UTC day or a UTC month - and the purse that keeps it at the moment.

A lane has several, and a request needs room in all of them (`Admission` takes all or nothing). Each window has a purse of its own. The trap is midnight: what
was reserved before belongs to the day before, however late its bill comes; so a lease remembers the very purses that it was taken from.

A purse of tokens counts tokens where its names say pico.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from batchllm.admit.purse import Purse
from batchllm.admit.windows import Window


class Booked(NamedTuple):
    """What a store knows to have been used and held since a moment."""

    spent: int
    pinned: int
    """Of attempts that may have been billed."""


class Allowance:
    """One cap and its present window."""

    __slots__ = ("_booked", "_cap", "ends_utc", "group", "name", "of_tokens", "purse", "starts_utc", "waits", "window")

    def __init__(
        self,
        name: str,
        purse: Purse,
        *,
        of_tokens: bool = False,
        window: Window | None = None,
        waits: bool = False,
        utc: float = 0.0,
        booked: Callable[[float], Booked] | None = None,
        group: str | None = None,
    ) -> None:
        """`booked`: what earlier runs used since a moment on; a clock that stepped back between runs makes some of it lie ahead, and it must go on counting."""
        self.name = name
        """The key of the spec that sets it."""
        self.purse = purse
        self.of_tokens = of_tokens
        self.window = window
        self.waits = waits
        """Whether a request waits for the next window when this one is used up."""
        self.group = group
        """The limit group that it belongs to; None: the budget."""
        self.starts_utc = 0.0 if window is None else window.start(utc)
        self.ends_utc = float("inf") if window is None else window.end(utc)
        self._cap = purse.cap_pico
        self._booked = booked

    def roll(self, utc: float) -> bool:
        """Opens the next window if it is time, and says so. Wall time that steps back never opens one again."""
        window = self.window
        if window is None or utc < self.ends_utc:
            return False
        self.starts_utc, self.ends_utc = window.start(utc), window.end(utc)
        ahead = self._booked(self.starts_utc) if self._booked is not None else Booked(0, 0)
        lender = self.purse.lender
        self.purse = Purse(cap_pico=self._cap, spent_pico=ahead.spent, pinned_pico=ahead.pinned)
        self.purse.lender = lender
        return True

    def set_cap(self, cap: int | None) -> None:
        """Another cap, for this window and all that follow."""
        self._cap = cap
        self.purse.set_cap(cap)

    def amount(self, pico: int, tokens: int) -> int:
        """What a request takes of it."""
        return tokens if self.of_tokens else pico

    def never(self, amount: int) -> bool:
        """Whether so much could not even be had of an untouched window."""
        cap = self.purse.cap_pico
        return cap is not None and amount > cap
