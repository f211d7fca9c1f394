"""Where a run stands, for the display, the other runs and the store: counts, money, rates, and what keeps it from being faster."""

from __future__ import annotations

from typing import Any

from batchllm.core.events import Progress
from batchllm.core.money import usd_from_pico
from batchllm.engine.context import Context
from batchllm.engine.feeder import Feeder
from batchllm.engine.lanes import Lanes


class View:
    """One per run. It changes nothing."""

    def __init__(self, context: Context, lanes: Lanes, began: float) -> None:
        self._context = context
        self._lanes = lanes
        self._began = began
        self.feeder: Feeder | None = None
        """From the moment on at which rows are read."""

    @property
    def paused(self) -> bool:
        """Whether a person has paused the run."""
        return self.feeder is not None and self.feeder.control.paused

    def limited_by(self) -> str:
        """What keeps the run from being faster, right now."""
        if self.paused:
            return "pause"
        queues = [lane.queue for lane in self._lanes.by_key if lane.queue.waiters]
        if queues:
            return max(queues, key=lambda queue: len(queue.waiters)).blocked_by or "latency"
        lanes = self._lanes.by_name.values()
        if any(not lane.backlog.empty() for lane in lanes):
            return "concurrency"
        return "latency" if self.feeder is not None and self.feeder.finished else "input"

    def waits_until(self) -> float | None:
        """When the window opens that keeps everybody waiting."""
        caps = [lane.queue.short_cap for lane in self._lanes.by_key if lane.queue.waiters and lane.queue.blocked_by == "budget"]
        ends = [cap.ends_utc for cap in caps if cap is not None and cap.waits and not cap.purse.holders]
        return min(ends) if ends and not self._lanes.everything.in_flight else None

    def progress(self) -> Progress:
        """For the display."""
        tally = self._context.outcomes.tally
        purse = self._lanes.purses[self._lanes.simulated_only]
        # What is left is told by rows that came to their end: a request may be one of many tries, or carry many rows.
        requests, used, rows = self._context.rates()
        pending = tally.pending
        return Progress(
            total=tally.total,
            ok=tally.ok,
            failed=tally.failed,
            in_flight=self._lanes.everything.in_flight,
            waiting=self._context.admission.waiting
            + self._context.outcomes.twins.waiting
            + sum(lane.backlog.qsize() + lane.parked for lane in self._lanes.by_name.values()),
            spent_pico=purse.spent_pico,
            reserved_pico=purse.reserved_pico,
            cap_pico=purse.cap_pico,
            simulated=self._lanes.simulated_only,
            requests_per_minute=requests,
            tokens_per_minute=used,
            limited_by=self.limited_by(),
            eta_seconds=pending / rows * 60 if pending is not None and rows > 0 and not self.paused else None,
            seconds=self._context.clock.now() - self._began,
            waits_until_utc=self.waits_until(),
        )

    def seen(self) -> dict[str, Any]:
        """Where the run stands, for the other runs and `batchllm jobs`."""
        now = self.progress()
        stopping = self._context.stopper.stop is not None
        return {
            "state": "stopping" if stopping else "paused" if self.paused else "running",
            "rows": {"total": now.total, "ok": now.ok, "failed": now.failed},
            "requests_per_minute": round(now.requests_per_minute, 1),
            "spent_usd": usd_from_pico(now.spent_pico),
            "simulated": now.simulated,
            "limited_by": now.limited_by,
        }
