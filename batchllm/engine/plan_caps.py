"""Which cap binds: how many requests fit under it at once, and how long the windows of a day make a job last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING

from batchllm.admit.windows import DAY, MONTH, Window
from batchllm.core.money import PICO_PER_USD
from batchllm.engine.plan_left import DayWait
from batchllm.spec import JobSpec, RateLimits

if TYPE_CHECKING:
    from batchllm.engine.plan import ModelPlan

_MOST_WINDOWS = 10_000
"""Decades of days; beyond that nobody counts."""


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
    for group_name, group in spec.limit_groups.items():
        own = [one for one in planned if one.name in group.models]
        dear = sum(one.worst_pico or 0 for one in own)
        # A part of the job: only a group that all rows go to first holds fewer of them at once.
        if group.usd_per_day is not None and dear and dear == worst:
            found.append(_fits(f"limit_groups.{group_name}.usd_per_day", _pico(group.usd_per_day, group.share) or 0, dear, requests))
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


def days_needed(
    spec: JobSpec, left: JobSpec, planned: Sequence[ModelPlan], requests: int, wait_seconds: DayWait, *, utc: float
) -> tuple[float, str | None]:
    """(the least seconds that limits and budgets of a day leave, which one it is); (0, None) when none binds. `left`: the spec with what is left of its budgets."""
    longest: tuple[float, str | None] = (0.0, None)
    # Several samples are several requests, and embeddings of many rows are one.
    each = requests / max(sum(one.rows for one in planned), 1)
    by_name = {one.name: one for one in planned}
    for names, limits, share in _limits(spec, planned):
        own = [by_name[name] for name in names if name in by_name]
        needs = {"rpd": each * sum(one.rows for one in own), "tpd": sum(one.input_tokens + one.output_expected for one in own)}
        for dimension, need in needs.items():
            limit = getattr(limits, dimension)
            if limit is not None and need:
                longest = max(longest, (wait_seconds(names, dimension, limit * share, need), dimension), key=lambda pair: pair[0])
    if spec.budget.when_used_up == "wait":
        for cap, rest, need, window in _windows(spec, left, planned):
            longest = max(longest, (_opens(cap, rest, need, window, utc), "budget"), key=lambda pair: pair[0])
    return longest


def _windows(spec: JobSpec, left: JobSpec, planned: Sequence[ModelPlan]) -> Iterator[tuple[int, int, int, Window]]:
    """(a cap, what is left of it now, what the job takes of it, how often it opens again), for each cap that does."""
    expected = sum(one.expected_pico or 0 for one in planned)
    tokens = sum(one.input_tokens + one.output_expected for one in planned)
    full, rest = spec.budget, left.budget
    yield _pico(full.usd_per_day) or 0, _pico(rest.usd_per_day) or 0, expected, DAY
    yield full.tokens_per_day or 0, rest.tokens_per_day or 0, tokens, DAY
    yield full.tokens_per_month or 0, rest.tokens_per_month or 0, tokens, MONTH
    for name, group in spec.limit_groups.items():
        own = sum(one.expected_pico or 0 for one in planned if one.name in group.models)
        yield _pico(group.usd_per_day, group.share) or 0, _pico(left.limit_groups[name].usd_per_day, group.share) or 0, own, DAY


def _opens(cap: int, left: int, need: int, window: Window, utc: float) -> float:
    """Seconds until the window in which a job ends begins; what it takes then is short beside it."""
    if not cap or need <= left:
        return 0.0
    at = utc
    for _ in range(min(ceil((need - left) / cap), _MOST_WINDOWS)):
        at = window.end(at)
    return at - utc


def _pico(usd: Decimal | None, share: float = 1.0) -> int | None:
    return None if usd is None else int(usd * Decimal(str(share)) * PICO_PER_USD)
