"""Finds how many requests in flight a server of one's own can use: more in flight than that only wait in its queue, and may time out there.

A server without rate limits (vLLM, llama.cpp, Ollama) never says stop; its throughput does. So the number is doubled as long as a quarter more answers come per second
than before, else it goes back to where it was, and is looked at again now and then. Latency can't decide: with batching it rises long before throughput ends.
The trap: a measurement counts only while the slots are really full; rows that come slowly, or a pause, say nothing about the server.
"""

from __future__ import annotations

import math

_FACTOR = 2.0
_WORTH = 1.25
"""Times the throughput, for twice the requests: below, the rest of them would only queue."""
_LEAST_ANSWERS = 24
_ROUNDS = 3
"""Answers per slot that a measurement takes, so that long and short answers even out."""
_FULL = 0.5
"""Of the slots, in use at the answers of a measurement on average (where they come all at once, the last of them sees nobody beside itself)."""
_REST = 40
"""Measurements after which a settled number is tried again."""


class Saturation:
    """Arithmetic only; time is an argument."""

    def __init__(self, slots: float, most: float) -> None:
        self.slots = min(slots, most)
        self._most = most
        self._below: tuple[float, float] | None = None
        """(slots, answers a second) of the step below; None: not trying a higher one."""
        self._rest = 0
        self._start(math.inf, skip=0)

    def _start(self, now: float, *, skip: int) -> None:
        self._since = now
        self._answers = -skip
        self._in_flight = 0.0

    def answered(self, now: float, in_flight: float) -> float:
        """An answer came while so many were in flight (itself among them). The number of slots from now on."""
        self._answers += 1
        if self._answers <= 0:
            return self.slots
        if self._since == math.inf or self._answers == 1:
            # The clock runs from an answer on, so that this one isn't counted.
            self._since, self._answers = now, 1
            return self.slots
        self._in_flight += in_flight
        if self._answers <= max(_LEAST_ANSWERS, _ROUNDS * self.slots) or now <= self._since:
            return self.slots
        answers = self._answers - 1
        if self._in_flight >= answers * self.slots * _FULL:
            self._decide(answers / (now - self._since))
        # What is in flight still belongs to the former number.
        self._start(now, skip=int(self.slots) + 1)
        return self.slots

    def _decide(self, rate: float) -> None:
        below = self._below
        if below is not None and rate < below[1] * _WORTH:
            self.slots, self._below, self._rest = below[0], None, _REST
        elif self._rest > 0 and below is None:
            self._rest -= 1
        elif self.slots < self._most:
            self._below = (self.slots, rate)
            self.slots = min(self._most, math.ceil(self.slots * _FACTOR))
        else:
            self._below, self._rest = None, _REST

    def refused(self, slots: float) -> None:
        """The server said "not now": so many at most, and no higher for a while."""
        self.slots, self._below, self._rest = slots, None, _REST
        self._start(math.inf, skip=0)
