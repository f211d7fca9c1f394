"""What `run` ends with: the fields of `run --json`, plus the exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Rows in scope; `total` and `pending` are None until the input's end is known."""

    total: int | None
    ok: int
    failed: int
    pending: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Sums over all attempts with known usage, over the store's whole life."""

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The outcome of a run."""

    job: str
    store: str
    results: str | None
    rows: RowCounts
    cost_usd: float | None
    """Known spend over the store's whole life; simulated dollars when every model is simulated."""
    reserved_usd: float
    """Held back for attempts that may have been billed."""
    simulated: bool = False
    """Whether these two are simulated dollars."""
    simulated_cost_usd: float | None = None
    """What simulated models cost beside real ones; None where there was only one kind."""
    tokens: Tokens
    attempts: int
    requests: int
    """Fewer than attempts where inputs of embeddings travelled together."""
    sent_nothing: bool = False
    """Whether all of these are earlier runs'."""
    retries: int
    refusals: int
    seconds: float
    stopped_by: str | None
    errors: Mapping[str, int] = field(default_factory=dict)
    exit_code: int = 0
    unpriced: int = 0
    """Requests that cost something at a price that isn't known: they are not in `cost_usd`."""
    shared: int = 0
    """Rows that share the outcome of another one."""
    telemetry: Mapping[str, Any] = field(default_factory=dict)
    """What trying again took: attempts per answer, waits, time and money of failed attempts, by error (`store.telemetry`)."""
    message: str | None = None
    """Why the run stopped, and what to do next."""

    def as_dict(self) -> dict[str, Any]:
        """The object of `run --json`."""
        return {
            "job": self.job,
            "store": self.store,
            "results": self.results,
            "rows": {"total": self.rows.total, "ok": self.rows.ok, "failed": self.rows.failed, "pending": self.rows.pending},
            "cost_usd": self.cost_usd,
            "reserved_usd": self.reserved_usd,
            "simulated_cost_usd": self.simulated_cost_usd,
            "tokens": {
                "input": self.tokens.input,
                "output": self.tokens.output,
                "cached_input": self.tokens.cached_input,
                "cache_write": self.tokens.cache_write,
                "reasoning": self.tokens.reasoning,
            },
            "attempts": self.attempts,
            "retries": self.retries,
            "refusals": self.refusals,
            "shared": self.shared,
            "seconds": round(self.seconds, 3),
            "stopped_by": self.stopped_by,
            "errors": dict(self.errors),
            "telemetry": dict(self.telemetry),
        }
