"""Where a job stands, read from its store alone: what `status` shows and `status --json` prints (contract 3).

It reads one snapshot, so that the numbers agree with each other while a run goes on. What is in flight counts as possibly billed as soon as no run holds
the store: the run that sent it is dead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from batchllm.core.money import usd_from_pico
from batchllm.engine.summary import RowCounts
from batchllm.store import is_locked
from batchllm.store.read import StoreReader, counts, error_codes, in_flight, money, paused_since, rates, row_states, snapshot, spend_by_model
from batchllm.store.settle import NOTHING_OPEN, open_attempts
from batchllm.store.spend import Left, Spend, budgets, provider_cost, spend_by
from batchllm.store.telemetry import Telemetry, read_telemetry
from batchllm.store.twins import shared_rows

_RATE_SECONDS = 60.0
_TOKENS = ("input", "output", "cached_input", "cache_write", "reasoning")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpend:
    """What one model was asked and cost."""

    model: str
    provider: str
    model_id: str
    simulated: bool
    attempts: int
    cost_pico: int | None
    """None: no price was known."""
    reserved_pico: int
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job at one moment."""

    job: str
    store: str
    results: str | None
    state: Literal["running", "stopped", "finished"]
    rows: RowCounts
    simulated: bool
    """Whether the sums are simulated dollars."""
    cost_pico: int | None
    reserved_pico: int
    simulated_pico: int | None
    """What simulated models cost beside real ones; None where there was only one kind."""
    cap_pico: int | None
    """Of the last run."""
    tokens: Mapping[str, int]
    attempts: int
    requests: int
    retries: int
    refusals: int
    in_flight: int
    """Attempts on their way; 0 when no run is there."""
    seconds: float
    """Of the last run, so far."""
    stopped_by: str | None
    message: str | None
    """Why the last run stopped."""
    errors: Mapping[str, int]
    possibly_billed: int
    """Attempts that the provider may have billed, until `settle`."""
    possibly_billed_pico: int
    possibly_billed_unknown: int
    """Of those, attempts whose bound isn't known either."""
    other_possibly_billed: int
    """The same of the other kind of dollars (simulated ones beside real ones)."""
    unpriced: int
    """Requests that cost something at a price that isn't known: they are not in `cost_pico`."""
    superseded_pico: int
    """Spent on answers that were replaced because their request changed."""
    requests_per_minute: float
    tokens_per_minute: float
    limited_by: str | None
    eta_seconds: float | None
    shared: int = 0
    """Rows that have another one's answer."""
    paused_seconds: float | None = None
    """How long a running job has been paused from a second terminal; None when it isn't."""
    models: Sequence[ModelSpend] = field(default_factory=tuple)
    budgets: Sequence[Left] = ()
    """All budgets of the last run, as they stand now."""
    spend: Mapping[str, Sequence[Spend]] = field(default_factory=dict)
    """By `kind`, `day` and `route`."""
    provider_cost: tuple[int, float] | None = None
    """(answers, dollars) that the provider itself named a cost for."""
    telemetry: Telemetry | None = None
    """What trying again took."""

    def as_dict(self) -> dict[str, Any]:
        """The object of `status --json`."""
        return {
            "job": self.job,
            "store": self.store,
            "results": self.results,
            "rows": {"total": self.rows.total, "ok": self.rows.ok, "failed": self.rows.failed, "pending": self.rows.pending},
            "cost_usd": usd_from_pico(self.cost_pico) if self.cost_pico is not None else None,
            "reserved_usd": usd_from_pico(self.reserved_pico),
            "simulated_cost_usd": usd_from_pico(self.simulated_pico) if self.simulated_pico is not None else None,
            "tokens": dict(self.tokens),
            "attempts": self.attempts,
            "retries": self.retries,
            "refusals": self.refusals,
            "shared": self.shared,
            "seconds": round(self.seconds, 3),
            "stopped_by": self.stopped_by,
            "errors": dict(self.errors),
            "state": self.state,
            "possibly_billed": {"attempts": self.possibly_billed, "usd_max": self.possibly_billed_usd},
            "superseded_usd": usd_from_pico(self.superseded_pico),
            "rate": {"requests_per_minute": round(self.requests_per_minute, 1), "tokens_per_minute": round(self.tokens_per_minute, 1)},
            "limited_by": self.limited_by,
            "eta_seconds": self.eta_seconds,
            "budgets": [_budget(left) for left in self.budgets],
            "spend": {f"by_{what}": [_spend(what, part) for part in parts] for what, parts in self.spend.items()},
            "provider_cost_usd": None if self.provider_cost is None else self.provider_cost[1],
            "telemetry": self.telemetry.as_dict() if self.telemetry is not None else None,
        }

    @property
    def possibly_billed_usd(self) -> float | None:
        """The most that possibly billed attempts can have cost; None when one of them has no known bound."""
        return None if self.possibly_billed_unknown else usd_from_pico(self.possibly_billed_pico)


def _spend(what: str, part: Spend) -> dict[str, Any]:
    return {
        what: part.key,
        "attempts": part.attempts,
        "cost_usd": None if part.cost_pico is None else usd_from_pico(part.cost_pico),
        "reserved_usd": usd_from_pico(part.reserved_pico),
        "input_tokens": part.input_tokens,
        "output_tokens": part.output_tokens,
    }


def _budget(left: Left) -> dict[str, Any]:
    sums = {"cap": left.cap, "used": left.used, "reserved": left.reserved}
    return {
        "name": left.name,
        "unit": left.unit,
        **(sums if left.unit == "tokens" else {name: usd_from_pico(value) for name, value in sums.items()}),
        "since": None if left.since_utc is None else datetime.fromtimestamp(left.since_utc, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def read_state(reader: StoreReader, *, results: str | None, now_utc: float) -> JobState:
    """Asks the store. `results` is the path of the results file, which the store doesn't know. Raises StoreError."""
    running = is_locked(reader.path) is not None
    with snapshot(reader) as connection:
        job = reader.job()
        run: dict[str, Any] = job["last_run"] or {}
        states, sums, numbers = row_states(connection), money(connection), counts(connection)
        maybe = open_attempts(connection, in_flight=not running)
        codes, shared = error_codes(connection), shared_rows(connection)
        models = spend_by_model(connection)
        flying = in_flight(connection) if running else 0
        left = budgets(connection, run=run.get("run"), simulated=sums["simulated"], now_utc=now_utc)
        spend = {what: spend_by(connection, what, simulated=sums["simulated"]) for what in ("kind", "day", "route")}
        named = provider_cost(connection, simulated=sums["simulated"])
        tried = read_telemetry(connection, simulated=sums["simulated"])
        paused = paused_since(connection, run["run"]) if running and run else None
        began = run.get("started_at", now_utc)
        # The run's own rate while it is younger than a minute.
        window = min(max(now_utc - began, 1.0), _RATE_SECONDS)
        sent, used, ended_rows = rates(connection, since_utc=now_utc - window) if running else (0, 0, 0)
    rows = _row_counts(job["total_rows"], states)
    shown, other = (maybe.get(kind, NOTHING_OPEN) for kind in (sums["simulated"], not sums["simulated"]))
    ended = run.get("ended_at") or (now_utc if running else run.get("seen_at") or began)
    return JobState(
        job=job["name"],
        store=str(reader.path),
        results=results,
        state="running" if running else "finished" if rows.pending == 0 else "stopped",
        rows=rows,
        simulated=sums["simulated"],
        cost_pico=sums["cost_pico"],
        reserved_pico=sums["reserved_pico"],
        simulated_pico=sums["simulated_beside"],
        cap_pico=run.get("cap_pico"),
        tokens={name: numbers[name] for name in _TOKENS},
        attempts=numbers["attempts"],
        requests=numbers["requests"],
        retries=numbers["retries"],
        refusals=numbers["refusals"],
        shared=shared,
        in_flight=flying,
        seconds=max(ended - began, 0.0),
        stopped_by=None if running else run.get("stopped_by"),
        message=None if running else run.get("message"),
        errors=codes,
        possibly_billed=shown.attempts,
        possibly_billed_pico=shown.worst_pico,
        possibly_billed_unknown=shown.unknown,
        other_possibly_billed=other.attempts,
        unpriced=sums["unpriced"],
        superseded_pico=sums["superseded_pico"],
        requests_per_minute=sent / window * 60,
        tokens_per_minute=used / window * 60,
        limited_by="pause" if paused is not None else run.get("limited_by") if running else None,
        # By rows that came to their end: a request may be one of many tries, or carry many rows.
        eta_seconds=rows.pending / ended_rows * window if running and rows.pending is not None and ended_rows > 0 and paused is None else None,
        paused_seconds=max(now_utc - paused, 0.0) if paused is not None else None,
        budgets=left,
        spend=spend,
        provider_cost=named,
        telemetry=tried,
        models=tuple(
            ModelSpend(**{**model, "simulated": bool(model["simulated"]), "reserved_pico": model["reserved_pico"] or 0}) for model in models
        ),
    )


def _row_counts(total: int | None, states: Mapping[int, int]) -> RowCounts:
    ok, failed = states.get(1, 0), states.get(2, 0)
    if total is not None and sum(states.values()) > total:
        # A run is reading an input that grew since the total was noted: the end isn't known.
        total = None
    return RowCounts(total=total, ok=ok, failed=failed, pending=None if total is None else total - ok - failed)
