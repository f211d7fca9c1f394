"""The provider's bill against the ledger and the caps: guarantee 3, after every life.

The bill is never more than what the ledger has spent or holds, and neither of them ever passes the largest cap that a life had. Largest, because caps change between
lives: what was spent under a higher one stays spent.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping

from batchllm.core.money import pico_from_usd
from batchllm.simulator import Simulator
from batchllm.simulator.audit import Record
from batchllm.spec import JobSpec
from batchllm.verify.findings import Findings
from batchllm.verify.ledger import Entry, held_pico, ledger
from batchllm.verify.plan import PRICES, Plan

_FRAME_TOKENS = 64
"""More than a prompt has besides its text."""
_FORM_TOKENS = 1500
"""More than a form that is asked for, an answer that is shown and what is wrong with it add to a prompt."""
_LONGEST = 4096
"""Tokens that an answer which is cut may get: the documented maximum of simulated models."""
_WINDOWED = {"usd_per_day": len("2026-11-21"), "tokens": 0, "tokens_per_day": len("2026-11-21"), "tokens_per_month": len("2026-11")}
"""Key of `budget` -> how much of a date names its window."""


def name_of(record: Record) -> tuple[int, int]:
    """(row key, attempt): how both the provider's log and the ledger name a request."""
    _, row_key, attempt = str(record.client_request_id).split(".")
    return int(row_key), int(attempt)


class Bill:
    """One per seed; it remembers the caps of all lives so far."""

    def __init__(self, plan: Plan, findings: Findings, sims: Mapping[str, Simulator]) -> None:
        self._plan = plan
        self._findings = findings
        self._sims = sims
        self._most_pico = 0
        """The largest cap so far."""
        self._capped = True
        self._windowed: dict[str, int] = {}
        """The largest cap of each window so far; those that a life went without are in `_unwindowed`."""
        self._unwindowed: set[str] = set()

    @property
    def pico(self) -> int:
        """All that was billed."""
        return sum(simulator.audit.cost_pico for simulator in self._sims.values())

    @property
    def overshoot_pico(self) -> int:
        """By how much the bill went past the largest cap."""
        return max(0, self.pico - self._most_pico) if self._capped else 0

    def records(self) -> Iterator[Record]:
        """All requests that arrived."""
        for simulator in self._sims.values():
            yield from simulator.audit.records

    def of_open(self, connection: sqlite3.Connection) -> int:
        """What was really billed for the possibly billed attempts."""
        bills = {name_of(record): record.cost_pico or 0 for record in self.records()}
        return sum(bills.get((entry.row_key, entry.attempt), 0) for entry in ledger(connection) if entry.billed == "maybe")

    def after(self, where: str, spec: JobSpec, entries: list[Entry]) -> None:
        """A life is over, under the caps of this spec."""
        held, bill = held_pico(entries), self.pico
        if bill > held:
            self._findings.add(f"{where}: the bill is {bill} pico-dollars, spent + possibly billed only {held}")
        if spec.budget.usd is None:
            self._capped = False
        else:
            self._most_pico = max(self._most_pico, pico_from_usd(spec.budget.usd))
        if self._capped and held > self._most_pico:
            self._findings.add(f"{where}: spent + reserved is {held} pico-dollars, the largest cap so far was {self._most_pico}")
        self._windows(where, spec, entries)
        self._billed_by_day(where)
        if self._capped and bill > self._most_pico:
            self._findings.add(f"{where}: the bill is {bill} pico-dollars, the largest cap so far was {self._most_pico}")

    def _windows(self, where: str, spec: JobSpec, entries: list[Entry]) -> None:
        """Budgets of days, months and tokens: what was sent in one of them stays within the largest cap that a life had."""
        for key, date_length in _WINDOWED.items():
            cap, of_dollars = getattr(spec.budget, key), key.startswith("usd")
            if cap is None:
                self._unwindowed.add(key)
            else:
                self._windowed[key] = max(self._windowed.get(key, 0), pico_from_usd(cap) if of_dollars else int(cap))
            if key in self._unwindowed:
                continue
            sums: dict[str, int] = defaultdict(int)
            for entry in entries:
                sums[entry.day[:date_length]] += entry.held_pico if of_dollars else entry.tokens
            for span, held in sums.items():
                if held > self._windowed[key]:
                    self._findings.add(f"{where}: {held} used and reserved in {span or 'all'}, the largest {key} so far was {self._windowed[key]}")

    def _billed_by_day(self, where: str) -> None:
        """The same of the provider's bill, by when the requests arrived there."""
        cap = self._windowed.get("usd_per_day")
        if cap is None or "usd_per_day" in self._unwindowed:
            return
        bills: dict[int, int] = defaultdict(int)
        for record in self.records():
            bills[int(record.time // 86_400)] += record.cost_pico or 0
        if (most := max(bills.values(), default=0)) > cap:
            self._findings.add(f"{where}: the bill of one day is {most} pico-dollars, the largest usd_per_day so far was {cap}")

    def used_up(self, where: str, spec: JobSpec, entries: list[Entry]) -> None:
        """A run was stopped by a budget: the next request really had no room in it."""
        if any(getattr(spec.budget, key) is not None for key in _WINDOWED):
            return
        if spec.budget.usd is None:
            self._findings.add(f"{where}: stopped by a budget that nobody set")
            return
        left = pico_from_usd(spec.budget.usd) - held_pico(entries)
        longest = max(len(str(line).encode()) for line in self._plan.final_rows)
        dearest = PRICES["b" if "b" in self._plan.sims else "a"]
        output = _LONGEST if spec.output.on_length == "retry" else self._plan.keys["request"]["max_tokens"]
        next_pico = ((longest + _FRAME_TOKENS + _FORM_TOKENS * self._plan.is_formed) * dearest["input"] + output * dearest["output"]) * 1e6
        self._findings.check(
            left < next_pico, f"{where}: stopped by the budget with {left} pico-dollars to spare, a request is at most {next_pico:.0f}"
        )
