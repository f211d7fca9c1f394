"""What the job's store leaves to do: a plan of a job that is half done is a plan of its other half.

Rows are matched and judged as a later run does it (`intake`, `compare`); nothing is written. The trap is the budget: what was spent is spent, so the caps that a
forecast plays with are what is left of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from typing import Literal

from batchllm.admit.windows import DAY_SECONDS, next_californian_midnight
from batchllm.core.money import PICO_PER_USD
from batchllm.core.nouns import Row, RowError, Wanted
from batchllm.engine.access import deployment_of
from batchllm.engine.compare import Judge
from batchllm.engine.pace import charging_of, left_of_day
from batchllm.engine.source import Planned, Source
from batchllm.spec import JobSpec
from batchllm.store.intake import Intake, load_answers
from batchllm.store.read import StoreReader
from batchllm.store.records import OK, PENDING, Deployment, Known
from batchllm.store.windows import DayUse, sent_to

DayWait = Callable[[Sequence[str], str, float, float], float]
"""The seconds that a limit per day leaves, by (the models that it holds for together, `rpd` or `tpd`, the limit, what is needed of it)."""

Standing = Literal["asked", "changed", "ok", "failed"]
"""What a run does with a row: sends it; sends it if `on_change` lets it; leaves its answer, or its failure, alone."""


class Left:
    """One reading of the input beside the store."""

    def __init__(self, reader: StoreReader, spec: JobSpec, source: Source, wanted: Wanted | None, retry_failed: frozenset[str] | None) -> None:
        self._connection = reader.connection
        self._keeps = spec.on_change == "keep"
        self._retry = retry_failed
        rows = reader.all("SELECT deployment, name, provider, base_url, model FROM deployments")
        deployments = {key: Deployment(name=name, provider=provider, base_url=base_url, model=model) for key, name, provider, base_url, model in rows}
        self._judge = Judge(spec, source, deployments, wanted)
        self._intake = Intake(self._connection, fresh=False, stream=source.is_stream, adding=False)
        self._answers: dict[int, tuple[str | None, int | None]] = {}
        self._codes: dict[int, str | None] = {}

    def take(self, rows: Sequence[Row]) -> list[Known]:
        """What the store knows of the next rows of the input."""
        known = self._intake.take(rows)
        done = [one.row_key for one in known if one.state != PENDING]
        self._answers = load_answers(self._connection, done)
        if self._retry is not None and done:
            marks = ", ".join("?" * len(done))
            query = f"SELECT row_key, error_code FROM outcomes WHERE status = 'failed' AND row_key IN ({marks})"  # noqa: S608 - question marks only
            self._codes = dict(self._connection.execute(query, done).fetchall())
        return known

    def of(self, one: Known, planned: Planned | RowError) -> Standing:
        """What a run does with a row of the last `take`."""
        if one.state == PENDING:
            return "asked"
        if self._retry is not None and one.row_key in self._codes and (not self._retry or self._codes[one.row_key] in self._retry):
            return "asked"
        if self._judge.stands(planned, *self._answers.get(one.row_key, (None, None))):
            return "ok" if one.state == OK else "failed"
        if one.state != OK:
            return "asked"
        return "ok" if self._keeps else "changed"


def with_what_is_left(spec: JobSpec, days: Sequence[DayUse], *, utc: float) -> JobSpec:
    """The spec with its budgets lowered by what was used of them (as far as it may have been billed, too)."""
    budget = spec.budget
    today = datetime.fromtimestamp(utc, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = {"": float("-inf"), "_per_day": today.timestamp(), "_per_month": today.replace(day=1).timestamp()}
    update: dict[str, Decimal | int] = {}
    for span, start in since.items():
        late = [day for day in days if day.day_utc >= start]
        usd: Decimal | None = getattr(budget, f"usd{span}", None)
        if usd is not None:
            update[f"usd{span}"] = max(usd - Decimal(sum(day.spent_pico + day.pinned_pico for day in late)) / PICO_PER_USD, Decimal(0))
        tokens: int | None = getattr(budget, f"tokens{span}")
        if tokens is not None:
            update[f"tokens{span}"] = max(tokens - sum(day.used_tokens + day.pinned_tokens for day in late), 0)
    groups = {}
    for name, group in spec.limit_groups.items():
        if group.usd_per_day is not None:
            late = [day for day in days if day.day_utc >= today.timestamp() and day.model in group.models]
            # Its share of what is left is this job's.
            used = Decimal(sum(day.spent_pico + day.pinned_pico for day in late)) / PICO_PER_USD / Decimal(str(group.share))
            groups[name] = group.model_copy(update={"usd_per_day": max(group.usd_per_day - used, Decimal(0))})
    return spec.model_copy(update={"budget": budget.model_copy(update=update), "limit_groups": {**spec.limit_groups, **groups}})


def day_wait(reader: StoreReader | None, spec: JobSpec, *, utc: float) -> DayWait:
    """How long limits per day make a job last, after what this store sent already. A provider's limit comes back all day long, or at its own midnight."""

    def wait_seconds(names: Sequence[str], dimension: str, limit: float, need: float) -> float:
        models = [spec.models[name] for name in names]
        how = charging_of(models[0], models[0].base_url or "")
        wanted = [deployment_of(name, spec.models[name]) for name in names]
        past = None if reader is None else lambda since_utc: sent_to(reader.connection, wanted, since_utc=since_utc)
        rest = need - min(limit, left_of_day(dimension, limit, how, utc, past))
        if rest <= 0:
            return 0.0
        if how.day == "california":
            return next_californian_midnight(utc) - utc + (ceil(rest / limit) - 1) * DAY_SECONDS
        return rest / limit * DAY_SECONDS

    return wait_seconds
