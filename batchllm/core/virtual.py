"""A loop on which an hour takes no time: whenever nothing is ready, its clock jumps to the next timer.

The whole engine runs on it unchanged (in-process provider, inline store), which gives tests exact seconds and the fault simulation its speed.
Threads do not hold this clock: anything that works in a thread must work inline here.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    """Returns at once; the time that it should have waited is added to the loop's clock."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise RuntimeError("virtual time: every task waits for something that no timer will bring (a deadlock)")
        if timeout > 0:
            # A microsecond at least, or rounding could leave the clock an instant before the timer for ever.
            self.time += max(timeout, 1e-6)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop whose `time()` starts at 0 and jumps."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.time


class VirtualClock:
    """The clock of a `VirtualLoop`; wall time runs along from `epoch` (default 2026-11-21T00:00:00Z) and `jump` shifts it, as a sleeping laptop would."""

    def __init__(self, *, epoch: float = 1_795_219_200.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoch = epoch
        self._last = 0.0

    def now(self) -> float:
        return self._loop.time()

    def utc(self) -> float:
        self._last = max(self._last, self._epoch + self._loop.time())
        return self._last

    def jump(self, seconds: float) -> None:
        """Moves wall time alone."""
        self._epoch += seconds

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run_virtual(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a coroutine function to its end on a new virtual loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
