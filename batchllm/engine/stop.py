"""Why a run stops before its rows are done. The first reason wins; from then on nothing new is sent, what is in flight may finish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from batchllm.admit import Closed
from batchllm.core.errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A reason, with its exit code (contract 3) and what to tell the person."""

    exit_code: int
    stopped_by: str | None
    message: str


class Stopper:
    """One per run."""

    def __init__(self) -> None:
        self.stop: Stop | None = None
        self.failure: StoreError | None = None
        """What the store failed with first, whatever stopped the run before."""
        self._event = asyncio.Event()
        self._on_stop: list[Callable[[Stop], None]] = []

    def on_stop(self, call: Callable[[Stop], None]) -> None:
        """`call` is called once, when the first reason comes."""
        self._on_stop.append(call)

    def set(self, stop: Stop) -> None:
        """Stops the run, unless it is stopping already."""
        if self.stop is None:
            self.stop = stop
            self._event.set()
            for call in self._on_stop:
                call(stop)

    def fail(self, error: StoreError) -> None:
        """The store takes nothing more, so nothing may be sent."""
        self.failure = self.failure or error
        self.set(Stop(exit_code=5, stopped_by="store", message=str(error)))

    async def wait(self) -> None:
        """Returns when the run stops."""
        await self._event.wait()

    async def sleep(self, seconds: float) -> None:
        """Waits; raises Closed as soon as the run stops."""
        if self.stop is None and seconds > 0:
            loop = asyncio.get_running_loop()
            done = loop.create_future()
            timer = loop.call_later(seconds, _finish, done)
            stopped = loop.create_task(self._event.wait())
            try:
                await asyncio.wait((done, stopped), return_when=asyncio.FIRST_COMPLETED)
            finally:
                timer.cancel()
                stopped.cancel()
        if self.stop is not None:
            raise Closed


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
