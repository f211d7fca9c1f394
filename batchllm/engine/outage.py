"""Whether an endpoint is down, and since when: what faults say of it, as long as no answer says otherwise."""

from __future__ import annotations

import math

FAULTS_IN_A_ROW = 5
"""Connection faults without an answer in between after which an endpoint counts as down."""


class Outage:
    """Whether an endpoint is down, and since when."""

    __slots__ = ("_rows", "alive_at", "down", "first_at", "late", "looked_at", "probes", "streak", "words")

    def __init__(self) -> None:
        self.alive_at = -math.inf
        """When the latest request that got a reply was sent: what was sent before it and got none can't blame the endpoint."""
        self._rows: set[int] = set()
        self.streak = 0
        self.first_at = 0.0
        self.looked_at = 0.0
        """When it was last looked at whether it has lasted too long."""
        self.down = False
        self.probes = 0
        self.words = ""
        self.late = True
        """Whether there was nothing but timeouts: then it may be no trouble at all, only slower than it is waited for."""

    def fault(self, now: float, words: str, *, late: bool = False, row_key: int | None = None) -> None:
        """A fault that an endpoint in trouble gives (`late`: a timeout). `row_key`: a row can give it too, so each row counts once."""
        if self.streak == 0:
            self.first_at = now
            self.late = True
        self.words = words
        self.late = self.late and late
        if row_key is not None:
            if row_key in self._rows:
                return
            self._rows.add(row_key)
        self.streak += 1

    def over(self) -> None:
        """An answer came, whatever it said."""
        self.streak = 0
        self.down = False
        self.probes = 0
        self._rows.clear()
