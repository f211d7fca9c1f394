"""The store against what was promised, after every life and at the end: the guarantees of contract 6, one function each.

The provider's audit log is the bill, the store is what we say it is, and the results file is what the user gets. `bill` holds the first two against each other,
`requests` one by one, `results` the third against an uninterrupted run; what a life announced, how it ended and which limits it ran into is judged here.
"""

from __future__ import annotations

import sqlite3
import traceback
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.core.errors import StoreError
from batchllm.engine import Summary
from batchllm.simulator import Simulator
from batchllm.spec import JobSpec
from batchllm.verify.bill import Bill
from batchllm.verify.findings import Findings
from batchllm.verify.ledger import Entry, ledger, opened
from batchllm.verify.plan import Plan
from batchllm.verify.process import Process
from batchllm.verify.requests import Tries, check_requests
from batchllm.verify.results import Reference, Results, Store

_EXPECTED_SHARE = 0.02
"""Of the requests: those whose output was more than expected may run into a limit, where providers count what is really produced."""
_COSTS = """
SELECT a.row_key, a.cost_pico, a.attempts, a.shared_from, (SELECT sum(l.cost_pico) FROM attempt_log l WHERE l.row_key = a.row_key AND l.attempt > r.cost_after),
       (SELECT coalesce(max(l.attempt), 0) FROM attempt_log l WHERE l.row_key = a.row_key)
FROM outcomes a JOIN rows r ON r.row_key = a.row_key
"""
_GONE = """
SELECT o.row_key, g.row_key FROM outcomes o JOIN rows r ON r.row_key = o.row_key
JOIN outcomes g ON g.twin = o.twin JOIN rows s ON s.row_key = g.row_key WHERE r.row IS NOT NULL AND s.row IS NULL
"""


class Judge:
    """One per seed."""

    def __init__(self, plan: Plan, findings: Findings, sims: Mapping[str, Simulator]) -> None:
        self._plan = plan
        self._findings = findings
        self._sims = sims
        self.bill = Bill(plan, findings, sims)
        self._answers: dict[int, tuple[Any, ...]] = {}
        self._limit_refusals = 0

    def before(self) -> None:
        """A life begins."""
        self._limit_refusals = self._refused_by_limits()

    def _refused_by_limits(self) -> int:
        return sum(simulator.audit.by_fault["limit"] + simulator.audit.by_fault["concurrency"] for simulator in self._sims.values())

    # After a life.

    def raised(self, process: Process, error: BaseException, *, disk_failed: bool) -> None:
        """A run that ended in an exception: only the disk may do that."""
        if isinstance(error, StoreError) and disk_failed:
            return
        text = "".join(traceback.format_exception(error)).strip()
        self._findings.add(f"{process.where}: {text}")

    def after(self, process: Process, folder: Path, spec: JobSpec, summary: Summary | None, *, disk_failed: bool) -> None:
        """The store that a life left."""
        with opened(folder) as connection:
            if connection is None:
                self._findings.check(not process.told, f"{process.where}: results were announced, and there is no store")
                return
            where = process.where
            self._told_is_there(process, connection)
            self._answers_stand(where, connection)
            entries = list(ledger(connection))
            self.bill.after(where, spec, entries)
            if summary is not None:
                self._ended_well(process, spec, summary, entries, connection)
                self._costs_add_up(where, summary, entries, connection)
                self._findings.check(not disk_failed, f"{where}: a commit failed, and the run ended with exit {summary.exit_code}")
        self._limits_kept(process)

    def _told_is_there(self, process: Process, connection: sqlite3.Connection) -> None:
        # A life that died before it had met all rows of a changed input leaves rows at their former places, beside those that are there now.
        there: dict[int, list[tuple[str, str | None]]] = defaultdict(list)
        for row, status, output in connection.execute("SELECT row, status, output FROM results"):
            there[row].append((status, output))
        for row, result in process.told.items():
            if (result.status, result.output) not in there[row]:
                self._findings.add(f"{process.where}: the result of row {row} was announced as committed, the store says {there[row]}")

    def _answers_stand(self, where: str, connection: sqlite3.Connection) -> None:
        now = {key: rest for key, *rest in connection.execute("SELECT row_key, status, output, attempts, fingerprint, cost_pico FROM outcomes")}
        replaced = {key for (key,) in connection.execute("SELECT row_key FROM history")}
        settled = connection.execute("SELECT count(*) FROM settlements").fetchone()[0]
        upto = 4 if settled else 5
        for key, before in self._answers.items():
            if key not in replaced and (key not in now or list(before[:upto]) != now[key][:upto]):
                self._findings.add(f"{where}: the committed answer of row_key {key} was {before}, is {now.get(key)}")
        self._answers = {key: tuple(rest) for key, rest in now.items()}

    def _ended_well(self, process: Process, spec: JobSpec, summary: Summary, entries: list[Entry], connection: sqlite3.Connection) -> None:
        """A run ended for a reason that the plan gave it."""
        where, life, check = process.where, process.life, self._findings.check
        check(not any(entry.outcome == "in_flight" for entry in entries), f"{where}: an attempt is still in flight after the run's end")
        rows = summary.rows
        match summary.exit_code, summary.stopped_by:
            case 0, None:
                check(rows.failed == 0 and rows.pending == 0, f"{where}: exit 0 with {rows}")
            case 1, None:
                check(rows.failed > 0 and rows.pending == 0, f"{where}: exit 1 with {rows}")
            case 3, "budget":
                self.bill.used_up(where, spec, entries)
            case 3, "deadline":
                check(spec.deadline is not None, f"{where}: stopped by a deadline that nobody set")
            case 4, "outage":
                moody = any(settings["faults"] or settings.get("outages") or settings.get("concurrency") for settings in self._plan.sims.values())
                well = not moody and self._plan.honest and not _all_hang(spec, entries, connection)
                check(not well, f"{where}: stopped by an outage of a provider that is well: {summary.message}")
            case 4, "provider":
                check(life.locked, f"{where}: stopped by a provider that lets everybody in: {summary.message}")
            case 130, "stop":
                check(life.end in ("interrupt", "cancel"), f"{where}: interrupted by nobody")
            case other:
                self._findings.add(f"{where}: ended with {other}: {summary.message}")

    def _costs_add_up(self, where: str, summary: Summary, entries: list[Entry], connection: sqlite3.Connection) -> None:
        """The sums that are shown are those of the ledger, in all and for every row."""
        check = self._findings.check
        spent = sum(entry.cost_pico or 0 for entry in entries)
        check(abs((summary.cost_usd or 0.0) - spent / 1e12) < 1e-11, f"{where}: the summary says {summary.cost_usd} USD, the ledger {spent / 1e12}")
        for key, cost, attempts, shared, known, sent in connection.execute(_COSTS):
            check(
                cost == (known if shared is None or attempts else 0),
                f"{where}: row_key {key} says that it cost {cost} pico-dollars, its attempts {known}",
            )
            check(attempts == sent, f"{where}: row_key {key} says {attempts} attempts, the ledger {sent}")

    def _limits_kept(self, process: Process) -> None:
        """No refusal by limits that were declared as they are: in lives that began at full buckets, and whose requests left as they were let through."""
        fresh = process.where == "life 1" or process.life.wait_seconds >= 60
        more = self._refused_by_limits() - self._limit_refusals
        declared = all(model["limits"] != "none" and model["limits"] is not None for model in self._plan.keys["models"].values())
        if any("rpd" in settings or "tpd" in settings for settings in self._plan.sims.values()):
            # Every run knows what the ones before it used. But by a clock that jumps a day is over which at the provider isn't.
            fresh = not self._plan.jumps
        allowed = 0
        if any(settings.get("accounting") == "anthropic" for settings in self._plan.sims.values()):
            allowed = int(_EXPECTED_SHARE * sum(simulator.audit.requests for simulator in self._sims.values()))
        if self._plan.honest and declared and fresh and process.life.calm and more > allowed:
            self._findings.add(f"{process.where}: {more} requests ran into the declared limits")

    # At the end.

    def end(self, folder: Path, reference: Reference) -> None:
        """The finished job."""
        with opened(folder) as connection:
            assert connection is not None
            entries = {(entry.row_key, entry.attempt): entry for entry in ledger(connection)}
            keys = dict(connection.execute("SELECT row, row_key FROM rows WHERE row IS NOT NULL").fetchall())
            gone: dict[int, list[int]] = defaultdict(list)
            for row_key, other in connection.execute(_GONE):
                gone[row_key].append(other)
        retry = self._plan.keys["retry"]
        tries = Tries(most=int(retry["max_attempts"]), timeout_seconds=float(retry["timeout_seconds"]))
        check_requests(self.bill.records(), entries, tries, self._findings)
        path = folder / "t.results.jsonl"
        self._findings.check(path.exists(), "there is no results file")
        if path.exists():
            store = Store(keys=keys, gone=gone, asked={(entry.row_key, entry.model) for entry in entries.values()})
            lines = [json.loads(line) for line in path.read_bytes().splitlines()]
            Results(self._plan, self._findings, store, tries).check(lines, reference)


def _all_hang(spec: JobSpec, entries: list[Entry], connection: sqlite3.Connection) -> bool:
    """Whether all rows that are left are of those that this run asked and that take longer than it waits: alone, they can't be told from an endpoint that hangs."""
    run = max(entry.run for entry in entries)
    late, others = ({entry.row_key for entry in entries if entry.run == run and (entry.outcome == "timeout") is timeout} for timeout in (True, False))
    left = dict(connection.execute("SELECT row_key, row FROM rows WHERE state = 0 AND row IS NOT NULL"))
    assert spec.input is not None
    lines = [_text(line) for path in spec.input.paths or () for line in Path(path).read_text("utf-8").splitlines()]
    asked = {lines[left[key]] for key in late - others if key in left}
    return all(lines[row] in asked for row in left.values())


def _text(line: str) -> str | None:
    try:
        return str(json.loads(line)["text"])
    except (ValueError, LookupError, TypeError):
        return None  # it was never sent
