"""Ctrl-C and SIGTERM: the first one ends a run in good order (what is in flight finishes), a second one ends it at once."""

from __future__ import annotations

import signal

import anyio

from batchllm.engine.stop import Stop, Stopper


class Signals:
    """One per run."""

    def __init__(self, stopper: Stopper) -> None:
        self._stopper = stopper
        self._heard = 0

    @property
    def at_once(self) -> bool:
        """Whether the run was told to end at once."""
        return self._heard > 1

    async def listen(self, scope: anyio.CancelScope) -> None:
        """Goes on until it is cancelled. `scope` is what a second signal cancels."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                self._heard += 1
                if self.at_once:
                    scope.cancel()
                    return
                name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
                self._stopper.set(Stop(exit_code=130, stopped_by="interrupt", message=f"interrupted by {name}; run again to continue"))
