"""What a person should know before the first request leaves: rules that never hold, money that can't be counted, a setting that has nothing to do. None of it stops a run."""

from __future__ import annotations

from collections.abc import Iterator

from batchllm.core.money import text_usd
from batchllm.engine.lanes import Lanes
from batchllm.engine.prompt_cache import NOTHING_TO_KEEP
from batchllm.spec import JobSpec


def of_routes(spec: JobSpec) -> Iterator[str]:
    """Rules behind one that takes every row."""
    everything = next((number for number, route in enumerate(spec.routes) if route.when is None), len(spec.routes))
    if everything < len(spec.routes) - 1:
        yield f"routes.{everything} has no `when`, so it takes every row, and no rule after it is ever looked at"


def of_lanes(spec: JobSpec, lanes: Lanes) -> Iterator[str]:
    """What the store and the models make of the budget and of the prompt cache."""
    if lanes.unpriced and spec.budget.usd is not None:
        yield f"{lanes.unpriced:,} earlier requests of this store were sent when no price was known: the budget can't count them"
    if lanes.budgets.unbounded:
        yield f"{lanes.budgets.unbounded:,} earlier requests of this store may have used nobody knows how many tokens: no budget of tokens can count them"
    if spec.budget.reserve == "learned" and any(cap.purse.cap_pico is not None for cap in lanes.budgets.all(simulated=lanes.simulated_only)):
        yield (
            "budget.reserve is `learned`: money is reserved for what nearly all answers stay within, so the budget may be overshot "
            f"by at most {text_usd(lanes.most_slack_pico(lanes.clock.utc()))} (every request in flight at its output cap)"
        )
    if spec.prompt_cache in {"5m", "1h"} and all(lane.prompt_cache is None for lane in lanes.by_name.values()):
        yield f"`prompt_cache: {spec.prompt_cache}` has nothing to keep: {NOTHING_TO_KEEP}"
