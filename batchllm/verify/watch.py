"""Stands at the provider's door and looks, at every request that arrives, at what a crash in this very instant would leave on the disk.

That is the strictest reading of guarantees 2 and 3: not what the engine believes, but what its store would still know. So a request must be in the committed journal,
its row must be without a committed answer, and all that the committed ledger says is spent or reserved must be within the cap.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.core.events import Progress
from batchllm.core.nouns import Fault
from batchllm.core.wire import HttpCall, HttpReply
from batchllm.verify.findings import Findings

_ENTRY = """
SELECT l.outcome, l.kind, l.started_at, r.state, (SELECT count(*) FROM attempt_log o WHERE o.row_key = l.row_key AND o.outcome = 'ok' AND o.run = l.run)
FROM attempt_log l JOIN rows r ON r.row_key = l.row_key WHERE l.row_key = ? AND l.attempt = ?
"""
_SUM = "SELECT coalesce(sum(coalesce(cost_pico, 0) + CASE WHEN billed = 'maybe' THEN reserved_pico ELSE 0 END), 0) FROM attempt_log"


_DAY_SECONDS = 86_400.0
_REPAIRED = 3
"""Messages: the prompt, the answer, and what was wrong with it."""


class _Door:
    """A declared limit, counted as strictly as a provider with the declared burst may."""

    def __init__(self, per_minute: int, burst_seconds: float) -> None:
        self._rate = per_minute / 60
        self._room = self._level = max(1.0, self._rate * burst_seconds)
        self._at = 0.0

    def passes(self, now: float) -> bool:
        self._level = min(self._room, self._level + (now - self._at) * self._rate) - 1
        self._at = now
        return self._level > -1e-3

    def gives_back(self) -> None:
        """What no provider counts, such as a connection that was refused."""
        self._level += 1


class Watch:
    """One per life. `wall` gives wall time without being noticed."""

    def __init__(
        self,
        findings: Findings,
        store: Path,
        *,
        where: str,
        cap_pico: int | None,
        most: Mapping[str, float],
        most_together: float,
        rpm: Mapping[str, tuple[int, float]],
        by_day: bool,
        hint_ceiling_seconds: float,
        wall: Callable[[], float],
    ) -> None:
        self._findings = findings
        self._store = store
        self._where = where
        self._cap = cap_pico
        self._most = most
        """Requests in flight that are allowed, by model."""
        self._most_together = most_together
        self._doors = {name: _Door(per_minute, burst_seconds) for name, (per_minute, burst_seconds) in rpm.items()}
        """Declared requests per minute, by model, where requests leave when they were let through."""
        self._by_day = by_day
        """Whether a budget counts days."""
        self._ceiling = hint_ceiling_seconds
        self._wall = wall
        self._reader: sqlite3.Connection | None = None
        self._seen: set[tuple[int, int]] = set()
        self._paused: dict[str, tuple[float, float]] = {}
        """By model: (until, wall time of the reply that said so)."""
        self.in_flight: dict[str, int] = {}
        self.stopped_at: float | None = None
        """Wall time from which on nothing new may be sent."""
        self.first_pico: int | None = None
        """Spent and reserved before this life's first request: with a lowered cap it may be above it."""

    def close(self) -> None:
        """Lets go of the store."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _rows(self, query: str, values: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        if self._reader is None:
            self._reader = sqlite3.connect(self._store, isolation_level=None)
        return self._reader.execute(query, values).fetchall()

    def arrival(self, model: str, call: HttpCall, now: float) -> None:
        """A request is at the provider's door."""
        name = next((str(value) for key, value in call.headers.items() if key.lower() == "x-client-request-id"), None)
        say = self._findings.add
        where = f"{self._where}, {now:.4f} s, {model}"
        if name is None:
            say(f"{where}: a request without its name")
            return
        row_key, attempt = (int(part) for part in name.split(".")[1:])
        where = f"{where}, row_key {row_key}, attempt {attempt}"
        if (row_key, attempt) in self._seen:
            say(f"{where}: sent twice under one name")
        self._seen.add((row_key, attempt))
        found = self._rows(_ENTRY, (row_key, attempt))
        if len(found) != 1 or found[0][0] != "in_flight":
            say(f"{where}: sent before its journal entry was committed (the store knows {found})")
            return
        _, kind, started_at, state, accepted = found[0]
        if state:
            say(f"{where}: sent although the row's outcome was committed (state {state})")
        if accepted:
            say(f"{where}: sent although this run had accepted an answer for the row")
        if kind == "repair" and len(json.loads(call.body)["messages"]) < _REPAIRED:
            say(f"{where}: a repair that doesn't show the model what it said")
        self._money(where)
        self._pauses(where, model, now, started_at)
        self._crowd(where, model)
        if model in self._doors and not self._doors[model].passes(now):
            say(f"{where}: sent above the declared requests per minute")
        if self._by_day and started_at // _DAY_SECONDS != self._wall() // _DAY_SECONDS:
            say(f"{where}: booked on the day before it was sent")

    def _money(self, where: str) -> None:
        if self._cap is None:
            return
        ((held,),) = self._rows(_SUM)
        if held > self._cap:
            self._findings.add(f"{where}: spent + reserved is {held / 1e12:.9f} USD in the committed ledger, the cap {self._cap / 1e12:.9f} USD")

    def _pauses(self, where: str, model: str, now: float, started_at: float) -> None:
        until, since = self._paused.get(model, (0.0, 0.0))
        # What was through the door before the hint came is on its way.
        if now < until - 1e-6 and started_at > since:
            self._findings.add(f"{where}: sent {until - now:.3f} s before the provider's wait was over")
        if self.stopped_at is not None and started_at > self.stopped_at:
            self._findings.add(f"{where}: sent after the run was told to stop")

    def _crowd(self, where: str, model: str) -> None:
        self.in_flight[model] = self.in_flight.get(model, 0) + 1
        if self.in_flight[model] > self._most.get(model, float("inf")):
            self._findings.add(f"{where}: {self.in_flight[model]} in flight, {self._most[model]:g} are allowed")
        together = sum(self.in_flight.values())
        if together > self._most_together:
            self._findings.add(f"{where}: {together} in flight on all models, {self._most_together:g} are allowed")

    def left(self, model: str) -> None:
        """A request is over, however it ended."""
        self.in_flight[model] = self.in_flight.get(model, 0) - 1

    def reply(self, model: str, reply: HttpReply | Fault, now: float) -> None:
        """What came back, as it is handed over."""
        if model in self._doors and (isinstance(reply, Fault) or reply.status >= 400):
            # Some of these count at the provider and some don't; here it is enough that answers are paced.
            self._doors[model].gives_back()
        if isinstance(reply, Fault) or reply.status not in (429, 503):
            return
        wait = _hint(reply.headers)
        if wait is not None and wait <= self._ceiling:
            until, since = self._paused.get(model, (0.0, 0.0))
            if now + wait > until:
                self._paused[model] = (now + wait, self._wall())
            else:
                self._paused[model] = (until, since)

    def progress(self, event: Progress) -> None:
        """What the engine believes, twice a second."""
        if event.cap_pico is None:
            return
        held = event.spent_pico + event.reserved_pico
        if self.first_pico is None:
            self.first_pico = held
        if held > max(event.cap_pico, self.first_pico):
            self._findings.add(f"{self._where}: the purse holds {held} pico-dollars, the cap is {event.cap_pico}")


def _hint(headers: Mapping[str, str]) -> float | None:
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is not None:
            try:
                return float(text) / unit
            except ValueError:
                return None  # a date
    return None
