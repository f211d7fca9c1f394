"""Time is injected: `now()` for waits (the loop's time), `utc()` for days, deadlines and prices (wall time).

Nobody else asks the operating system for the time. Loop time stands still while a laptop sleeps, so whoever waits for a wall-clock moment looks at
`utc()` every few seconds. A step of the wall clock backwards never reopens a window: `utc()` never falls within one process.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What the engine knows of time."""

    def now(self) -> float:
        """Seconds on the loop's clock; only differences mean something."""

    def utc(self) -> float:
        """Wall time, seconds since 1970 UTC; never falls."""

    async def sleep(self, seconds: float) -> None:
        """Waits on the loop's clock."""


class LoopClock:
    """The running loop's clock, with the operating system's wall time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._last = 0.0

    def now(self) -> float:
        return self._loop.time()

    def utc(self) -> float:
        self._last = max(self._last, time.time())
        return self._last

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
