"""What is known of a model before it is asked - its price, its longest answer, its window - and whether a cap can be kept with that much.

By what the spec says, else by the lists. The trap: unknown is not zero. Under a cap, a model without a price, or without a bound of its answers, is refused (exit 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from batchllm import cost, tokens
from batchllm.core.errors import Problem, SpecError
from batchllm.cost import Prices
from batchllm.cost.facts import ModelFacts
from batchllm.engine.access import Access
from batchllm.engine.budgets import has_token_cap, has_usd_cap
from batchllm.providers.capabilities import output_cap_default
from batchllm.spec import JobSpec, ModelSpec

PriceFinder = Callable[[str, float, str | None], Prices | None]
"""(model id, time, service tier) -> prices; None: nobody knows them."""
_WITH_A_LIST = frozenset({"openai", "anthropic", "gemini"})
"""Behind whatever `base_url`, the user says that it is theirs: a proxy in front of them changes neither the bill nor the model."""


def price_finder(model: ModelSpec, base_url: str) -> PriceFinder:
    """A price in the spec always wins; a model on one's own Ollama is free."""
    price = model.price
    if price is not None and price.input is not None and price.output is not None:
        own = cost.from_spec(input=price.input, output=price.output, cached_input=price.cached_input, cache_write=price.cache_write)
        return lambda _id, _utc, _tier: own
    provider = model.provider
    if provider == "ollama" and not _is_cloud(model.model, base_url):
        free = cost.from_spec(input=Decimal(0), output=Decimal(0))
        return lambda _id, _utc, _tier: free

    def find(model_id: str, utc: float, tier: str | None) -> Prices | None:
        found = cost.book(provider, model_id, base_url=base_url or None, utc=utc, service_tier=tier)
        if found is None and provider in _WITH_A_LIST:
            found = cost.book(provider, model_id, utc=utc, service_tier=tier)
        return found

    return find


def _is_cloud(model_id: str, base_url: str) -> bool:
    """Whether Ollama's own computers answer, not the user's: that costs something, and nobody says what."""
    host = (urlsplit(base_url).hostname or "").lower()
    return host == "ollama.com" or host.endswith(".ollama.com") or model_id.endswith(("-cloud", ":cloud"))


def documented_output(model: ModelSpec, base_url: str) -> int | None:
    """The most output tokens of an answer where the request names no cap: the model's documented maximum, or the one that the wire sends."""
    if model.provider == "anthropic":
        # Its requests must name a cap.
        return output_cap_default(model.model)
    return documented(model, base_url).max_output_tokens


def documented(model: ModelSpec, base_url: str) -> ModelFacts:
    """What is documented of the model, or said by the spec."""
    facts = cost.limits(model.provider, model.model, base_url=base_url or None)
    if facts.max_output_tokens is None and model.provider in _WITH_A_LIST:
        facts = cost.limits(model.provider, model.model)
    told = model.context_window or _asked_window(model)
    return facts if told is None else replace(facts, context_window=told)


def _asked_window(model: ModelSpec) -> int | None:
    """The window that a request asks Ollama for."""
    options = model.body.get("options") if model.provider == "ollama" else None
    asked = options.get("num_ctx") if isinstance(options, dict) else None
    return asked if isinstance(asked, int) and asked > 0 else None


def check_money(spec: JobSpec, access: Mapping[str, Access], utc: float) -> None:
    """Under a cap every reachable model needs a bound of its output, and under one in dollars a price. Raises SpecError."""
    problems: list[Problem] = []
    file = str(spec.path) if spec.path is not None else None
    for name, reach in access.items():
        model = spec.models[name]
        half = model.price is not None and (model.price.input is None or model.price.output is None)
        if half:
            problems.append(
                Problem(file=file, path=f"models.{name}.price", message="a price needs both `input` and `output` (USD per million tokens)")
            )
            continue
        dollars = has_usd_cap(spec, name)
        if not dollars and not has_token_cap(spec):
            continue
        params: dict[str, Any] = {**spec.request, **model.request, **model.body}
        if dollars and price_finder(model, reach.base_url)(model.model, utc, params.get("service_tier")) is None:
            problems.append(
                Problem(
                    file=file,
                    path=f"models.{name}",
                    message=f"the price of {model.model!r} is not known, so the cap can't be kept; give it: price: {{input: 0.10, output: 0.50}} (USD per million tokens)",
                )
            )
        elif spec.endpoint != "embeddings" and tokens.output_cap(params) is None and documented_output(model, reach.base_url) is None:
            problems.append(
                Problem(
                    file=file,
                    path=f"models.{name}",
                    message=f"how long an answer of {model.model!r} can get is not known, so the cap can't be kept; set request: {{max_tokens: 1000}}",
                )
            )
    if problems:
        raise SpecError(problems)
