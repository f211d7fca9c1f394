"""The provider's audit log against the store, after every life and at the end: the guarantees of contract 6, one function each.

The audit log is the bill; the store is what we say it is. Both name every request alike (job, row, attempt), so each request is looked at in both.
"""

from __future__ import annotations

import contextlib
import sqlite3
import traceback
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchllm.core.errors import StoreError
from batchllm.core.money import pico_from_usd
from batchllm.engine import Summary
from batchllm.simulator import Simulator
from batchllm.simulator.audit import Record
from batchllm.simulator.faults import BY_NAME
from batchllm.spec import JobSpec
from batchllm.verify.findings import Findings
from batchllm.verify.plan import PRICES, Plan

if TYPE_CHECKING:
    from batchllm.verify.world import Process

Reference = Callable[[tuple[str, ...] | None], list[dict[str, Any]]]
_DIFFERS = ("attempts", "latency_seconds", "cost_usd", "shared_from")
"""Who shares whose answer is looked at apart: where a row failed, another one was sent instead."""
_REFUSALS = frozenset({"outage", "limit", "concurrency", "refuse", "529", "498", "slow_down", "resource_unavailable", "402_retry_after"})
"""What the audit calls faults that say "not now", or that nobody is there; further those that begin with 429 and 503."""
_PAID = frozenset(
    {"500", "502", "504", "524", "stall", "stall_mid", "half_json", "html_200", "empty_200", "error_200", "finish_error", "no_choices"}
    | {"stream_error", "stream_no_finish", "stream_cut", "stream_stall_comments"}
)
"""Faults of which a row bears three, whatever `max_attempts` says."""
_FRAME_TOKENS = 64
"""More than a prompt has besides its text."""
_FORM_TOKENS = 1500
"""More than a form that is asked for, an answer that is shown and what is wrong with it add to a prompt."""
_LONGEST = 4096
"""Tokens that an answer which is cut may get: the documented maximum of simulated models."""
_BETTER = frozenset({"invalid_output", "truncated"})
"""Outcomes of answers that came and weren't good enough."""
_EXPECTED_SHARE = 0.02
"""Of the requests: those whose output was more than expected may run into a limit, where providers count what is really produced."""


class _Entry(NamedTuple):
    """An attempt in the ledger."""

    row_key: int
    attempt: int
    model: str
    run: int
    outcome: str
    counted: int
    billed: str
    reserved_pico: int | None
    cost_pico: int | None
    settled: int | None
    day: str
    """UTC, of sending."""
    tokens: int
    """Used, or reserved where it may have been billed."""


_LEDGER = """
SELECT l.row_key, l.attempt, d.name, l.run, l.outcome, l.counted, l.billed, l.reserved_pico, l.cost_pico, l.settled,
       strftime('%Y-%m-%d', l.started_at, 'unixepoch'),
       CASE WHEN l.input_tokens IS NOT NULL THEN l.input_tokens + l.output_tokens WHEN l.billed = 'no' THEN 0 ELSE l.reserved_tokens END
FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment
"""
_GONE = """
SELECT o.row_key, g.row_key FROM outcomes o JOIN rows r ON r.row_key = o.row_key
JOIN outcomes g ON g.twin = o.twin JOIN rows s ON s.row_key = g.row_key WHERE r.row IS NOT NULL AND s.row IS NULL
"""
_COSTS = """
SELECT a.row_key, a.cost_pico, a.attempts, a.shared_from, (SELECT sum(l.cost_pico) FROM attempt_log l WHERE l.row_key = a.row_key AND l.attempt > r.cost_after),
       (SELECT coalesce(max(l.attempt), 0) FROM attempt_log l WHERE l.row_key = a.row_key)
FROM outcomes a JOIN rows r ON r.row_key = a.row_key
"""


def refused(fault: str | None) -> bool:
    """Whether the provider said "not now", or was not there."""
    return fault is not None and (fault in _REFUSALS or fault.startswith(("429", "503")))


class Judge:
    """One per seed."""

    def __init__(self, plan: Plan, findings: Findings, sims: Mapping[str, Simulator]) -> None:
        self._plan = plan
        self._findings = findings
        self._sims = sims
        self._answers: dict[int, tuple[Any, ...]] = {}
        self._most_pico = 0
        """The largest cap so far, or what was there when a lower one came."""
        self._capped = True
        self._windowed: dict[str, int] = {}
        """The largest cap of each window so far; those that a life went without are in `_unwindowed`."""
        self._unwindowed: set[str] = set()
        self._limit_refusals = 0
        self._gone: dict[int, list[int]] = defaultdict(list)
        """Of rows in the input, those with the same request that are no longer in it."""

    @property
    def _bill_pico(self) -> int:
        return sum(simulator.audit.cost_pico for simulator in self._sims.values())

    @property
    def overshoot_pico(self) -> int:
        """By how much the bill went past the largest cap."""
        return max(0, self._bill_pico - self._most_pico) if self._capped else 0

    def before(self) -> None:
        """A life begins."""
        self._limit_refusals = self._refused_by_limits()

    def _refused_by_limits(self) -> int:
        return sum(simulator.audit.by_fault["limit"] + simulator.audit.by_fault["concurrency"] for simulator in self._sims.values())

    def bill_of_open(self, connection: sqlite3.Connection) -> int:
        """What the provider really billed for the possibly billed attempts."""
        bills = {_name(record): record.cost_pico or 0 for record in self._records()}
        return sum(bills.get((entry.row_key, entry.attempt), 0) for entry in _ledger(connection) if entry.billed == "maybe")

    def _records(self) -> Iterator[Record]:
        for simulator in self._sims.values():
            yield from simulator.audit.records

    # After a life.

    def raised(self, process: Process, error: BaseException, *, disk_failed: bool) -> None:
        """A run that ended in an exception: only the disk may do that."""
        if isinstance(error, StoreError) and disk_failed:
            return
        text = "".join(traceback.format_exception(error)).strip()
        self._findings.add(f"{process.where}: {text}")

    def after(self, process: Process, folder: Path, spec: JobSpec, summary: Summary | None, *, disk_failed: bool) -> None:
        """The store that a life left."""
        with _opened(folder) as connection:
            if connection is None:
                self._findings.check(not process.told, f"{process.where}: results were announced, and there is no store")
                return
            where = process.where
            self._told_is_there(process, connection)
            self._answers_stand(where, connection)
            entries = list(_ledger(connection))
            self._money(where, spec, entries)
            if summary is not None:
                self._ended_well(process, spec, summary, entries, connection)
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

    def _money(self, where: str, spec: JobSpec, entries: list[_Entry]) -> None:
        held = sum((entry.cost_pico or 0) + ((entry.reserved_pico or 0) if entry.billed == "maybe" else 0) for entry in entries)
        bill = self._bill_pico
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

    def _windows(self, where: str, spec: JobSpec, entries: list[_Entry]) -> None:
        """Budgets of days, months and tokens: what was sent on one UTC day stays within the largest cap that a life had."""
        for name in ("usd_per_day", "tokens", "tokens_per_day", "tokens_per_month"):
            cap = getattr(spec.budget, name)
            if cap is None:
                self._unwindowed.add(name)
            else:
                self._windowed[name] = max(self._windowed.get(name, 0), int(cap) if name != "usd_per_day" else pico_from_usd(cap))
            if name in self._unwindowed:
                continue
            sums: dict[str, int] = defaultdict(int)
            for entry in entries:
                held = (
                    (entry.cost_pico or 0) + ((entry.reserved_pico or 0) if entry.billed == "maybe" else 0) if name == "usd_per_day" else entry.tokens
                )
                sums[entry.day[: {"tokens": 0, "tokens_per_month": 7}.get(name, 10)]] += held
            for span, held in sums.items():
                if held > self._windowed[name]:
                    self._findings.add(f"{where}: {held} used and reserved in {span or 'all'}, the largest {name} so far was {self._windowed[name]}")

    def _billed_by_day(self, where: str) -> None:
        """The same of the provider's bill, by when the requests arrived there."""
        cap = self._windowed.get("usd_per_day")
        if cap is None or "usd_per_day" in self._unwindowed:
            return
        bills: dict[int, int] = defaultdict(int)
        for record in self._records():
            bills[int(record.time // 86_400)] += record.cost_pico or 0
        if (most := max(bills.values(), default=0)) > cap:
            self._findings.add(f"{where}: the bill of one day is {most} pico-dollars, the largest usd_per_day so far was {cap}")

    def _ended_well(self, process: Process, spec: JobSpec, summary: Summary, entries: list[_Entry], connection: sqlite3.Connection) -> None:
        where, life, check = process.where, process.life, self._findings.check
        check(not any(entry.outcome == "in_flight" for entry in entries), f"{where}: an attempt is still in flight after the run's end")
        rows = summary.rows
        match summary.exit_code, summary.stopped_by:
            case 0, None:
                check(rows.failed == 0 and rows.pending == 0, f"{where}: exit 0 with {rows}")
            case 1, None:
                check(rows.failed > 0 and rows.pending == 0, f"{where}: exit 1 with {rows}")
            case 3, "budget":
                self._used_up(where, spec, entries)
            case 3, "deadline":
                check(spec.deadline is not None, f"{where}: stopped by a deadline that nobody set")
            case 4, "outage":
                moody = any(settings["faults"] or settings.get("outages") or settings.get("concurrency") for settings in self._plan.sims.values())
                check(moody or not self._plan.honest, f"{where}: stopped by an outage of a provider that is well: {summary.message}")
            case 4, "provider":
                check(life.locked, f"{where}: stopped by a provider that lets everybody in: {summary.message}")
            case 130, "stop":
                check(life.end in ("interrupt", "cancel"), f"{where}: interrupted by nobody")
            case other:
                self._findings.add(f"{where}: ended with {other}: {summary.message}")
        spent = sum(entry.cost_pico or 0 for entry in entries)
        check(abs((summary.cost_usd or 0.0) - spent / 1e12) < 1e-11, f"{where}: the summary says {summary.cost_usd} USD, the ledger {spent / 1e12}")
        for key, cost, attempts, shared, known, sent in connection.execute(_COSTS):
            check(
                cost == (known if shared is None or attempts else 0),
                f"{where}: row_key {key} says that it cost {cost} pico-dollars, its attempts {known}",
            )
            check(attempts == sent, f"{where}: row_key {key} says {attempts} attempts, the ledger {sent}")

    def _used_up(self, where: str, spec: JobSpec, entries: list[_Entry]) -> None:
        budget = spec.budget
        if any(value is not None for value in (budget.usd_per_day, budget.tokens, budget.tokens_per_day, budget.tokens_per_month)):
            return
        if spec.budget.usd is None:
            self._findings.add(f"{where}: stopped by a budget that nobody set")
            return
        held = sum((entry.cost_pico or 0) + ((entry.reserved_pico or 0) if entry.billed == "maybe" else 0) for entry in entries)
        left = pico_from_usd(spec.budget.usd) - held
        longest = max(len(str(line).encode()) for line in self._plan.final_rows)
        dearest = PRICES["b" if "b" in self._plan.sims else "a"]
        output = _LONGEST if spec.output.on_length == "retry" else self._plan.keys["request"]["max_tokens"]
        next_pico = ((longest + _FRAME_TOKENS + _FORM_TOKENS * self._plan.is_formed) * dearest["input"] + output * dearest["output"]) * 1e6
        self._findings.check(
            left < next_pico, f"{where}: stopped by the budget with {left} pico-dollars to spare, a request is at most {next_pico:.0f}"
        )

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
        with _opened(folder) as connection:
            assert connection is not None
            entries = {(entry.row_key, entry.attempt): entry for entry in _ledger(connection)}
            keys = dict(connection.execute("SELECT row, row_key FROM rows WHERE row IS NOT NULL").fetchall())
            # Rows that are no longer in the input may have been asked for those that are.
            for row_key, gone in connection.execute(_GONE):
                self._gone[row_key].append(gone)
        faults = self._requests(entries)
        path = folder / "t.results.jsonl"
        self._findings.check(path.exists(), "there is no results file")
        if path.exists():
            from batchllm.core import json

            asked = {(entry.row_key, entry.model) for entry in entries.values()}
            self._results([json.loads(line) for line in path.read_bytes().splitlines()], keys, faults, asked, reference)

    def _requests(self, entries: Mapping[tuple[int, int], _Entry]) -> dict[tuple[int, str], list[Record]]:
        """Each request, in the provider's log and in ours. Returns by (row key, model) those that count as tries."""
        counting: dict[tuple[int, str], list[Record]] = defaultdict(list)
        arrived: set[tuple[int, int]] = set()
        add = self._findings.add
        for record in self._records():
            name = _name(record)
            entry = entries.get(name)
            if name in arrived:
                add(f"{_request(record)} arrived twice")
            arrived.add(name)
            if entry is None:
                add(f"{_request(record)} arrived and is not in the ledger")
                continue
            cost = record.cost_pico or 0
            if entry.reserved_pico is None or cost > entry.reserved_pico:
                add(f"{_request(record)} ({record.fault}) was billed {cost}, reserved were {entry.reserved_pico}")
            if entry.settled is None:
                if entry.billed == "yes" and entry.cost_pico != cost:
                    add(f"{_request(record)} ({record.fault}) was billed {cost}, the ledger says {entry.cost_pico}")
                if entry.billed == "no" and cost:
                    add(f"{_request(record)} ({record.fault}) was billed {cost}, the ledger says that it was not ({entry.outcome})")
            # A refusal that came too late is a timeout.
            not_now = refused(record.fault) and (record.delivered or record.status is None)
            if not_now and entry.counted:
                add(f"{_request(record)}: a refusal ({record.fault}) used up an attempt")
            bad = entry.outcome in _BETTER and bool(entry.counted)
            if not not_now and (not record.delivered or bad or _group(record.fault) in ("transient", "permanent")):
                counting[entry.row_key, entry.model].append(record)
        for name, entry in entries.items():
            if name not in arrived and entry.outcome != "cancelled":
                add(f"row_key {entry.row_key}, attempt {entry.attempt}: the ledger says {entry.outcome}, nothing arrived")
            if entry.counted and entry.outcome == "cancelled":
                add(f"row_key {entry.row_key}, attempt {entry.attempt}: a cut attempt used up a try")
        return counting

    def _results(
        self,
        lines: list[dict[str, Any]],
        keys: Mapping[int, int],
        faults: Mapping[tuple[int, str], list[Record]],
        asked: Collection[tuple[int, str]],
        reference: Reference,
    ) -> None:
        calm = reference(None)
        if [line["row"] for line in lines] != list(range(len(calm))):
            self._findings.add(f"the results are not one line per row in input order: {len(lines)} lines for {len(calm)} rows")
            return
        self._shared(lines)
        self._formed(lines, keys, asked)
        twins = self._twins(keys)
        others: dict[str, list[dict[str, Any]]] = {}
        for line, wanted in zip(lines, calm, strict=True):
            if self._alike(line) == self._alike(wanted):
                continue
            model = line["model"]
            if self._plan.keys.get("stream") and line["usage"] is None and self._alike(line) == self._alike({**wanted, "usage": None}):
                # The stream broke off between the end of the answer and its counts.
                continue
            if model is not None and model != wanted["model"]:
                if model not in others:
                    others[model] = reference((model,))
                asked_for_it = (*twins[line["row"]], *self._gone[keys[line["row"]]])
                if self._alike(line) == self._alike(others[model][line["row"]]) and any(
                    self._may_fall_back(key, wanted["model"], faults) for key in asked_for_it
                ):
                    continue
            better = _code(line) in _BETTER
            if better and model == wanted["model"] and _code(line) == _code(wanted):
                # Tries that were lost to faults are fewer tries to get it right.
                continue
            if model is not None and (better or (line["error"] or {}).get("retryable")) and self._bore(keys[line["row"]], model, faults):
                continue
            self._findings.add(f"row {line['row']} is {self._alike(line)}, of an uninterrupted run {self._alike(wanted)}")

    def _formed(self, lines: list[dict[str, Any]], keys: Mapping[int, int], asked: Collection[tuple[int, str]]) -> None:
        """Answers have the form that was asked for, and what has it nowhere was asked for everywhere."""
        if not self._plan.is_formed:
            return
        output = self._plan.keys["output"]
        ladder = output["on_invalid"].get("escalate", ())
        for line in lines:
            value = line["parsed"]
            if line["status"] == "ok":
                fits = value in output["choices"] if "choices" in output else _fits(value, least=16 if "check" in output else 0)
                self._findings.check(fits, f"row {line['row']} is ok with {value}")
            elif _code(line) in _BETTER:
                for model in ladder:
                    self._findings.check(
                        (keys[line["row"]], model) in asked, f"row {line['row']} failed on {line['model']}, and {model} was not asked"
                    )

    def _groups(self) -> Iterator[list[int]]:
        """Rows that share an answer, in input order."""
        groups: dict[str, list[int]] = defaultdict(list)
        for row, line in enumerate(self._plan.final_rows):
            if isinstance(line, dict) and "text" in line:
                groups[line["text"]].append(row)
        yield from groups.values()

    def _twins(self, keys: Mapping[int, int]) -> dict[int, list[int]]:
        """Row -> keys of the rows that may have been sent for it."""
        twins = {row: [key] for row, key in keys.items()}
        if "temperature" in self._plan.keys["request"]:
            for group in self._groups():
                together = [keys[row] for row in group]
                twins |= {row: together for row in group}  # noqa: C420 - nobody changes the list
        return twins

    def _shared(self, lines: list[dict[str, Any]]) -> None:
        """Of equal rows the lowest one with a good answer was sent, and the others share it."""
        if "temperature" not in self._plan.keys["request"]:
            for line in lines:
                self._findings.check(line["shared_from"] is None, f"row {line['row']} shares the answer of {line['shared_from']}")
        elif self._plan.final_rows is self._plan.rows and not any(life.retry_failed for life in self._plan.lives):
            # Else rows were put back whose answers others had shared by then.
            for group in self._groups():
                good = [lines[row] for row in group if lines[row]["status"] == "ok"]
                for line in good:
                    first = None if line is good[0] else good[0]["custom_id"]
                    if line["shared_from"] != first:
                        self._findings.add(f"row {line['row']} shares the answer of {line['shared_from']}, not of {first}")

    def _alike(self, line: dict[str, Any]) -> dict[str, Any]:
        kept = {name: value for name, value in line.items() if name not in _DIFFERS}
        if _code(line) in _BETTER:
            # The last of the answers, and what was wrong with it.
            kept = {"row": line["row"], "model": line["model"], "code": _code(line), "error": None}
        if kept["error"] is not None and self._plan.final_rows is not self._plan.rows:
            # Messages name the line that a row had when it was read.
            kept["error"] = {**kept["error"], "message": None}
        return kept

    def _bore(self, row_key: int, model: str, faults: Mapping[tuple[int, str], list[Record]]) -> bool:
        """Whether enough went wrong with a row for it to fail on a model; refusals don't count."""
        found = faults.get((row_key, model), [])
        most = int(self._plan.keys["retry"]["max_attempts"])
        # What came too late, or would have, is a timeout, which counts as hard.
        late = float(self._plan.keys["retry"]["timeout_seconds"])
        hard = any(
            record.fault in _PAID or (not record.delivered and (_group(record.fault) != "transient" or record.seconds >= late)) for record in found
        )
        return len(found) >= (min(most, 3) if hard else most)

    def _may_fall_back(self, row_key: int, first: str, faults: Mapping[tuple[int, str], list[Record]]) -> bool:
        moved = self._plan.keys["retry"]["on_outage"] == "fallback" or any(life.locked for life in self._plan.lives)
        return moved or self._bore(row_key, first, faults)


def _fits(value: Any, *, least: int) -> bool:
    return (
        isinstance(value, dict) and set(value) == {"label", "score"} and value["label"] in ("good", "bad", "odd") and least <= value["score"] <= 100
    )


def _code(line: Mapping[str, Any]) -> str | None:
    return None if line["error"] is None else str(line["error"]["code"])


def _group(fault: str | None) -> str | None:
    return BY_NAME[fault].group if fault in BY_NAME else None


def _request(record: Record) -> str:
    # Without the job's id, which is another one each time.
    return "row_key {}, attempt {}".format(*_name(record))


def _name(record: Record) -> tuple[int, int]:
    _, row_key, attempt = str(record.client_request_id).split(".")
    return int(row_key), int(attempt)


def _ledger(connection: sqlite3.Connection) -> Iterator[_Entry]:
    for row in connection.execute(_LEDGER):
        yield _Entry(*row)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection | None]:
    """The store in a folder; None when there is none yet."""
    path = folder / "t.db"
    if not path.exists():
        yield None
        return
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        there = connection.execute("SELECT count(*) FROM sqlite_master WHERE name IN ('attempt_log', 'settlements', 'deployments')").fetchone()[0]
        yield connection if there == 3 else None
