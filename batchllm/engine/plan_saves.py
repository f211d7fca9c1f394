"""What would make a job cheaper: the provider's Batch API, its prompt cache, sharing answers of identical rows, another model. Told, never done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchllm import cost
from batchllm.core.nouns import Usage
from batchllm.cost import Prices
from batchllm.cost.listing import find, maker, usual
from batchllm.engine.plan_count import Counted
from batchllm.engine.plan_models import PlanModel
from batchllm.spec import JobSpec, ModelSpec
from batchllm.spec.model import is_own_host

if TYPE_CHECKING:
    from batchllm.engine.plan import ModelPlan

_CACHE_FROM_TOKENS = 1024
"""Shared beginnings that providers cache are at least so long."""
_ACCOUNTS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
"""The price book's words for the providers that sell batches."""
_WORTH = 0.01
"""Of the cost; less isn't worth a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """One thing that would save money."""

    by: str
    """`batch`, `prompt_cache`, `dedupe`, `model`."""
    model: str
    saved_pico: int
    words: str


def savings(spec: JobSpec, models: Mapping[str, PlanModel], planned: Sequence[ModelPlan], counted: Counted, *, utc: float) -> Iterator[Saving]:
    """For each model of the plan whose price is known."""
    for one in planned:
        model = models[one.name]
        if model.prices is None or not one.expected_pico or not one.rows:
            continue
        for saving in (
            _batch(model, one, utc),
            _prompt_cache(spec, model, one, counted),
            _dedupe(spec, counted, one),
            _cheaper(model, one, utc),
        ):
            if saving is not None and saving.saved_pico >= _WORTH * one.expected_pico:
                yield saving


def _sum(one: ModelPlan, prices: Prices) -> int:
    """The plan's tokens at other prices, as requests of equal size."""
    requests = max(one.rows, 1)
    mean = Usage(
        input_tokens=one.input_tokens // requests, output_tokens=one.output_expected // requests, cached_input_tokens=one.cached_tokens // requests
    )
    return prices.price(mean) * requests


def batch_prices(model: ModelSpec, base_url: str, utc: float) -> Prices | None:
    """What the provider's Batch API costs; None where there is none, or no price is known."""
    price = model.price
    if price is not None:
        if price.batch_input is None or price.batch_output is None:
            return None
        return cost.from_spec(input=price.batch_input, output=price.batch_output)
    provider = maker(model.model) if model.provider == "simulated" else model.provider
    if provider not in _ACCOUNTS or (base_url and model.provider != "simulated" and not is_own_host(provider, base_url)):
        return None
    table = next((one.others["batch"] for one in find(model.model, provider=_ACCOUNTS[provider], utc=utc) if "batch" in one.others), None)
    return Prices(version="batch", tiers=table) if table is not None else None


def _batch(model: PlanModel, one: ModelPlan, utc: float) -> Saving | None:
    prices = batch_prices(model.spec, model.base_url, utc)
    if prices is None or model.prices is None or model.spec.batch != "never":
        return None
    saved = _sum(one, model.prices) - _sum(one, prices)
    return Saving(by="batch", model=one.name, saved_pico=saved, words=f"the Batch API for {one.name}, for answers within a day")


def _prompt_cache(spec: JobSpec, model: PlanModel, one: ModelPlan, counted: Counted) -> Saving | None:
    prices, start = model.prices, counted.prefixes.get(one.name, "")
    if prices is None or one.cached_tokens or spec.endpoint == "embeddings" or len(start) < _CACHE_FROM_TOKENS:
        return None
    tier = prices.tiers[0]
    tokens = model.counter.text(start)
    if tokens < _CACHE_FROM_TOKENS or tier.cached_input >= tier.input:
        return None
    saved = tokens * (one.rows - 1) * (tier.input - tier.cached_input)
    words = f"the provider's prompt cache, if it reads the {tokens:,} tokens that all prompts of {one.name} begin with"
    return Saving(by="prompt_cache", model=one.name, saved_pico=saved, words=words)


def _dedupe(spec: JobSpec, counted: Counted, one: ModelPlan) -> Saving | None:
    again = counted.repeats.get(one.name, 0) - counted.shared.get(one.name, 0)
    # Of several samples each is to be another one; and of what is done, nothing can be saved.
    if again <= 0 or spec.dedupe is True or (spec.samples or 1) > 1 or counted.done:
        return None
    mean = (one.expected_pico or 0) // max(one.rows, 1)
    return Saving(
        by="dedupe", model=one.name, saved_pico=again * mean, words=f"`dedupe: true`: {again:,} rows of {one.name} ask what an earlier one asks"
    )


def _cheaper(model: PlanModel, one: ModelPlan, utc: float) -> Saving | None:
    """The cheapest of the provider's own models that is cheaper."""
    account = _ACCOUNTS.get(model.spec.provider)
    if model.prices is None or account is None:
        return None
    now = _sum(one, model.prices)
    best: tuple[int, str] | None = None
    for listed in usual(utc=utc):
        if listed.provider != account or listed.table is None or listed.deprecated or "embed" in listed.model:
            continue
        total = _sum(one, Prices(version="", tiers=listed.table))
        if total < now and (best is None or total < best[0]):
            best = (total, listed.model)
    if best is None:
        return None
    return Saving(
        by="model", model=one.name, saved_pico=now - best[0], words=f"{best[1]} instead of {one.model} (compare their answers: batchllm compare)"
    )
