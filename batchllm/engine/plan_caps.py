"""Which cap binds: how many requests fit under it at once, and how long the windows of a day make a job last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING

from batchllm.core.money import PICO_PER_USD
from batchllm.spec import JobSpec, RateLimits

if TYPE_CHECKING:
    from batchllm.engine.plan import ModelPlan

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A cap that holds fewer requests at once than the job has."""

    budget: str
    rows_at_once: int
    """Requests whose most fits under what is left of it."""
    rounds: int
    """How often that many go, until all went."""


def binding_cap(spec: JobSpec, planned: Sequence[ModelPlan], requests: int) -> Binding | None:
    """The tightest cap, of which what was spent is taken off already; None when all requests fit under it at once, or none is set."""
    if not requests or not planned:
        return None
    found: list[Binding] = []
    worst = None if any(one.worst_pico is None for one in planned) else sum(one.worst_pico or 0 for one in planned)
    tokens = None if any(one.output_worst is None for one in planned) else sum(one.input_tokens + (one.output_worst or 0) for one in planned)
    for name, usd in (("budget.usd", spec.budget.usd), ("budget.usd_per_day", spec.budget.usd_per_day)):
        if usd is not None and worst:
            found.append(_fits(name, int(usd * PICO_PER_USD), worst, requests))
    for name, cap in (
        ("budget.tokens", spec.budget.tokens),
        ("budget.tokens_per_day", spec.budget.tokens_per_day),
        ("budget.tokens_per_month", spec.budget.tokens_per_month),
    ):
        if cap is not None and tokens:
            found.append(_fits(name, cap, tokens, requests))
    tight = [one for one in found if one.rows_at_once < requests]
    return min(tight, key=lambda one: one.rows_at_once) if tight else None


def _fits(name: str, left: int, worst: int, requests: int) -> Binding:
    fits = min(left * requests // worst, requests)
    return Binding(budget=name, rows_at_once=fits, rounds=ceil(requests / fits) if fits else 0)


def minutes_needed(spec: JobSpec, planned: Sequence[ModelPlan], times: int) -> float:
    """The least seconds that the limits of a minute leave, with so many requests a row."""
    by_name = {one.name: one for one in planned}
    longest = 0.0
    for names, limits, share in _limits(spec, planned):
        own = [by_name[name] for name in names if name in by_name]
        read, written = sum(one.input_tokens for one in own), sum(one.output_expected for one in own)
        needs = {"rpm": times * sum(one.rows for one in own), "tpm": read + written, "itpm": read, "otpm": written}
        for dimension, need in needs.items():
            limit = getattr(limits, dimension)
            if limit is not None:
                longest = max(longest, need / (limit * share) * 60)
    return longest


def _limits(spec: JobSpec, planned: Sequence[ModelPlan]) -> list[tuple[list[str], RateLimits, float]]:
    """(models, the limits that hold for them together, this job's share of these)."""
    groups = spec.limit_groups.values()
    return [
        *(([one.name], spec.models[one.name].all_limits(), 1.0) for one in planned),
        *((list(group.models), group, float(group.share)) for group in groups),
    ]


def days_needed(spec: JobSpec, planned: Sequence[ModelPlan], requests: int, utc: float) -> tuple[float, str | None]:
    """(the least seconds that limits and budgets of a day leave, which one it is); (0, None) when none binds.

    Limits per day come back all day long, so a full day's worth goes at once and the rest at the day's rate. Budgets open again at midnight UTC.
    """
    longest: tuple[float, str | None] = (0.0, None)
    # Several samples are several requests, and embeddings of many rows are one.
    each = requests / max(sum(one.rows for one in planned), 1)
    by_name = {one.name: one for one in planned}
    for names, limits, share in _limits(spec, planned):
        own = [by_name[name] for name in names if name in by_name]
        needs = {"rpd": each * sum(one.rows for one in own), "tpd": sum(one.input_tokens + one.output_expected for one in own)}
        for dimension, need in needs.items():
            limit = getattr(limits, dimension)
            if limit is not None and need > limit * share:
                longest = max(longest, ((need / (limit * share) - 1) * _DAY_SECONDS, dimension), key=lambda pair: pair[0])
    expected = sum(one.expected_pico or 0 for one in planned)
    tokens = sum(one.input_tokens + one.output_expected for one in planned)
    if spec.budget.when_used_up == "wait":
        left = _DAY_SECONDS - utc % _DAY_SECONDS
        for cap, need in ((_pico(spec.budget.usd_per_day), expected), (spec.budget.tokens_per_day, tokens)):
            if cap and need > cap:
                # Today's part, whole days, and the last day's part is short beside them.
                longest = max(longest, (left + (ceil(need / cap) - 2) * _DAY_SECONDS, "budget"), key=lambda pair: pair[0])
        if spec.budget.tokens_per_month and tokens > spec.budget.tokens_per_month:
            months = ceil(tokens / spec.budget.tokens_per_month) - 1
            now = datetime.fromtimestamp(utc, UTC)
            later = datetime(now.year + (now.month - 1 + months) // 12, (now.month - 1 + months) % 12 + 1, 1, tzinfo=UTC)
            longest = max(longest, (later.timestamp() - utc, "budget"), key=lambda pair: pair[0])
    return longest


def _pico(usd: Decimal | None) -> int | None:
    return None if usd is None else int(usd * PICO_PER_USD)
