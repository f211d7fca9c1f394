"""What a run looks at twice a second, whatever its requests do: its deadline, lanes that are out, alerts, new days; and a heartbeat in the store.

The trap is the clock: loop time stands still while a laptop sleeps, so days and deadlines are looked for here, by wall time, and not by timers.
"""

from __future__ import annotations

import asyncio
import contextlib

from batchllm.core.errors import StoreError
from batchllm.engine.alerts import Alerts, Tellers
from batchllm.engine.context import Context
from batchllm.engine.lanes import Lanes
from batchllm.engine.steer import Steering
from batchllm.engine.stop import Stop
from batchllm.engine.view import View

_TICK_SECONDS = 0.5
_HEARTBEAT_SECONDS = 5.0


class Pulse:
    """One per run."""

    def __init__(self, context: Context, *, lanes: Lanes, view: View, alerts: Alerts, tellers: Tellers, steering: Steering) -> None:
        self._context = context
        self._lanes = lanes
        self._view = view
        self._alerts = alerts
        self._tellers = tellers
        self._steering = steering

    async def run(self) -> None:
        """Goes on until it is cancelled."""
        clock = self._context.clock
        beat = clock.now()
        while True:
            self._look()
            now = clock.now()
            if now - beat >= _HEARTBEAT_SECONDS and self._context.stopper.failure is None:
                beat = now
                with contextlib.suppress(StoreError):
                    await self._beat()
            await asyncio.sleep(_TICK_SECONDS)

    async def _beat(self) -> None:
        run, limited, utc = self._context.number, self._view.limited_by(), self._context.clock.utc()
        await self._context.writer.call(
            lambda connection: connection.execute("UPDATE runs SET seen_at = ?, limited_by = ? WHERE run = ?", (utc, limited, run))
        )

    def _look(self) -> None:
        context, lanes = self._context, self._lanes
        context.mark()
        deadline, words = self._steering.deadline, self._steering.deadline_words
        if deadline is not None and context.clock.utc() >= deadline:
            context.stopper.set(Stop(exit_code=3, stopped_by="deadline", message=f"the deadline ({words}) has come; run again to continue"))
        for lane in lanes.by_key:
            if not self._view.paused:
                context.weather.check(lane)
        self._tellers.tell(self._alerts.look())
        utc = context.clock.utc()
        groups = {id(group): group for lane in lanes.by_key for group in lane.groups}
        fresh = [group.look(utc) for group in groups.values()] + [lane.queue.roll(utc) for lane in lanes.by_key]
        if any(fresh):
            context.admission.pump()
        context.listener(self._view.progress())
