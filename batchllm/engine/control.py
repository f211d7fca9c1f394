"""What a program holds of its own run: it may stop it, hold requests back while results are not taken, and ask which stored results still stand.

The trap: a wait before admission would not hold anything back, because rows that already stand at the door would still be let through. So the door itself
(the group that every request passes) is shut, and the feeder waits too, or rows that need no request would fill the memory.

A person at a second terminal may pause the run as well. The two reasons are kept apart: a reader that takes its results doesn't end a person's pause.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from batchllm.admit import Admission, LimitGroup
from batchllm.core.clock import Clock
from batchllm.engine.outcomes import Outcomes
from batchllm.engine.socket import Answer
from batchllm.engine.stop import Stop, Stopper


class Stands(Protocol):
    """Whether a stored result is one of this run's scope that it will not ask for again."""

    def __call__(self, *, row_key: int, position: int, identity: str) -> bool: ...


class Control:
    """One per run; belongs to the run's loop."""

    def __init__(
        self,
        *,
        store: Path,
        fresh: bool,
        clock: Clock,
        stopper: Stopper,
        admission: Admission,
        everything: LimitGroup,
        outcomes: Outcomes,
        stands: Stands,
    ) -> None:
        self.store = store
        self.fresh = fresh
        """Whether the store held no rows when the run began."""
        self.stands = stands
        self.answer: Answer | None = None
        """Does what a second terminal may ask for: see `engine.steer`."""
        self._clock = clock
        self._stopper = stopper
        self._admission = admission
        self._everything = everything
        self._outcomes = outcomes
        self._held = False
        self._paused_at: float | None = None
        self._free = asyncio.Event()
        self._free.set()
        stopper.on_stop(self._over)

    @property
    def stopped(self) -> bool:
        """Whether nothing new is sent any more, for whatever reason."""
        return self._stopper.stop is not None

    def stop(self, *, message: str, stopped_by: str = "stop") -> None:
        """Nothing new is sent; what is in flight may finish. The first reason wins."""
        self._stopper.set(Stop(exit_code=130, stopped_by=stopped_by, message=message))

    def on_stop(self, call: Callable[[], None]) -> None:
        """`call` is called when the run stops; at once if it has."""
        if self.stopped:
            call()
        else:
            self._stopper.on_stop(lambda _stop: call())

    def on_row(self, call: Callable[[], None]) -> None:
        """`call` is called with every result on its way to the store: before its commit, when its request's place is free again."""
        self._outcomes.on_row = call

    @property
    def held(self) -> bool:
        """Whether requests are held back because results are not taken."""
        return self._held

    def hold(self) -> None:
        """Sends nothing until `release`."""
        if not self.stopped:
            self._held = True
            self._shut()

    def release(self) -> None:
        """Sends again, unless a person has paused the run."""
        if self._held:
            self._held = False
            self._maybe_open()

    @property
    def paused(self) -> bool:
        """Whether a person has paused the run."""
        return self._paused_at is not None

    def pause(self) -> None:
        """Nothing new is sent until `resume`; what is in flight finishes."""
        if not self.stopped and not self.paused:
            self._paused_at = self._clock.now()
            self._shut()

    def resume(self) -> float:
        """Ends a person's pause. Returns how long it was, in seconds."""
        if self._paused_at is None:
            return 0.0
        seconds = self._clock.now() - self._paused_at
        self._paused_at = None
        self._maybe_open()
        return seconds

    def _over(self, _stop: Stop) -> None:
        self._held = False
        self._paused_at = None
        self._free.set()

    def _shut(self) -> None:
        self._free.clear()
        self._everything.paused_until = math.inf

    def _maybe_open(self) -> None:
        if not self._held and not self.paused:
            self._free.set()
            self._everything.paused_until = -math.inf
            self._admission.pump()

    async def wait_free(self) -> None:
        """Waits while requests are held back; not beyond a stop."""
        await self._free.wait()
