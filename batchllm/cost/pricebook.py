"""The price book: genai-prices' dated data, read once per model, tier and quarter of an hour into a table of integers.

The trap: asked for a price that it does not have, the book's own arithmetic answers with the standard price (an unknown tier), with 0 (a model
without prices, a unit that is not priced) or with a neighbour's price (a guess by name alone). Under a cost cap each of these is a hole, so whatever
is not a plain function of input and output tokens is unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from batchllm.cost import accounts
from batchllm.cost.prices import Prices, Table, from_spec, rate_from_usd, tiers_from_rates
from batchllm.cost.updates import current

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

_UNITS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
}
# Billed only when the request uses that tool or carries audio: the bound of the tokens refuses such requests (`tokens`), plain ones cost what is left.
_ON_DEMAND = frozenset(
    {
        "web_searches_kcount",
        "storage_searches_kcount",
        "social_searches_kcount",
        "code_executions_kcount",
        "input_audio_mtok",
        "cache_audio_read_mtok",
    }
)
_MORE_THAN_TEXT = re.compile(r"search|audio|realtime|live|transcri|translate|tts|whisper|image|omni|moderation")
"""Ids of models that always search the web, or hear or make other things than text, at rates that their plain token prices leave out."""

_STANDARD_TIERS = frozenset({"", "auto", "default", "standard", "standard_only", "on_demand"})
_CHEAPER_TIERS = frozenset({"flex"})
"""Tiers that cost at most the standard price: a model without a rate for them may be booked at the standard one."""

_HORIZON = timedelta(hours=48)
_SLOT_SECONDS = 900
"""Known price changes fall on quarters of an hour; one inside a slot is looked up afresh."""

_SIMULATED_AS = ("openai", "anthropic", "google")


def book(provider: str, model_id: str, *, base_url: str | None = None, utc: float, service_tier: str | None = None) -> Prices | None:
    """The price table of a model at a moment (`utc`, seconds since 1970), or None when it is unknown.

    `provider` is the spec's word; another `base_url` than the provider's own counts by its host alone. `service_tier` is the one that the request
    asks for, or that the answer names. A tier above the standard one without a rate of its own is unknown; no tier or `auto` is the standard price,
    which holds as long as the account's own default is the standard tier. Fine-tuned models, Ollama and unknown hosts are unknown.
    `simulated` costs what the same model id costs at OpenAI, Anthropic or Google, any other id 0.10 / 0.40 USD per million tokens.

    The same question within a quarter of an hour is a dictionary lookup; the first one loads the book (some 100 ms).
    """
    slot = utc // _SLOT_SECONDS * _SLOT_SECONDS
    prices = _resolve(provider, model_id, base_url, slot, service_tier)
    if prices is not None and prices.valid_until_utc is not None and utc >= prices.valid_until_utc:
        prices = _resolve.__wrapped__(provider, model_id, base_url, utc, service_tier)
    return prices


@lru_cache(maxsize=512)
def _resolve(provider: str, model_id: str, base_url: str | None, utc: float, service_tier: str | None) -> Prices | None:
    if provider == "simulated":
        return _simulated(model_id, utc)
    found = _find(provider, model_id, base_url)
    return None if found is None else _prices(*found, utc=utc, service_tier=service_tier)


def _simulated(model_id: str, utc: float) -> Prices:
    if not model_id.startswith("sim-"):
        for account in _SIMULATED_AS:
            found = _find_at(account, model_id)
            if found and (prices := _prices(*found, utc=utc, service_tier=None)) is not None:
                return replace(prices, version=f"simulated, {prices.version}")
    return replace(from_spec(input="0.10", output="0.40"), version="simulated")


def _find(provider: str, model_id: str, base_url: str | None) -> tuple[Provider, ModelInfo] | None:
    """The book's entry of a model, only where provider or host are certain."""
    account = accounts.of(provider, base_url)
    if account is None and base_url is not None and provider != "ollama":
        account = _account_by_url(base_url)
    return None if account is None else _find_at(account, model_id)


def _account_by_url(base_url: str) -> str | None:
    for provider in current().snapshot.providers:
        match = re.match(provider.api_pattern, base_url)
        # The book's patterns are open-ended: `https://api.groq.com.example.net` would match as well.
        if match and (match.group().endswith(("/", ".")) or base_url[match.end() : match.end() + 1] in ("", "/", ":")):
            return None if provider.id in accounts.OWN_WORDS else provider.id
    return None


def _find_at(account: str, model_id: str) -> tuple[Provider, ModelInfo] | None:
    if model_id.startswith("ft:") or ".ft-" in model_id or ":ft-" in model_id:
        return None
    try:
        # Not through find_provider_model: it keeps every name it is asked for, and names come from answers.
        snapshot = current().snapshot
        provider = snapshot.find_provider(None, account, None)
        model = provider.find_model(model_id, all_providers=snapshot.providers)
    except LookupError:
        return None
    return None if model is None else (provider, model)


def _prices(provider: Provider, model: ModelInfo, *, utc: float, service_tier: str | None) -> Prices | None:
    now = datetime.fromtimestamp(utc, UTC)
    table = _table(provider, model, now, service_tier)
    if table is None:
        return None
    valid_until: float | None = None
    others: list[Table] = []
    for moment in sorted(set(changes(model, now))):
        later = _table(provider, model, moment, service_tier)
        if later == table:
            continue
        if valid_until is None:
            valid_until = moment.timestamp()
        if moment <= now + _HORIZON and later is not None and later not in others:
            others.append(later)
    return Prices(version=current().version, tiers=table, other_hours=tuple(others), valid_until_utc=valid_until)


def changes(model: ModelInfo, now: datetime) -> Iterator[datetime]:
    """Every later moment at which a dated or hourly price of the model begins or ends, hours for the next two days."""
    from genai_prices.types import StartDateConstraint, TimeOfDateConstraint

    conditions = [] if not isinstance(model.prices, list) else [entry.constraint for entry in model.prices]
    conditions += [variant.constraint for variant in model.price_variants or ()]
    moments: list[datetime] = []
    for condition in conditions:
        if isinstance(condition, StartDateConstraint):
            moments.append(datetime.combine(condition.start_date, time(), UTC))
        elif isinstance(condition, TimeOfDateConstraint):
            for clock in (condition.start_time, condition.end_time):
                moments += [datetime.combine(now.date() + timedelta(days=day), clock, clock.tzinfo or UTC) for day in range(-1, 4)]
    return (moment.astimezone(UTC) for moment in moments if moment > now)


def _table(provider: Provider, model: ModelInfo, moment: datetime, service_tier: str | None) -> Table | None:
    tier = service_tier or ""
    if tier in _STANDARD_TIERS:
        return table_of(model.get_prices(moment, None), provider, model)
    # Anthropic's dearer way is a `speed`, everybody else's a tier.
    contexts = [context for key in ("service_tier", "speed") if _has(model, context := {key: tier}, moment)]
    if not contexts and tier not in _CHEAPER_TIERS:
        return None
    return table_of(model.get_prices(moment, contexts[0] if contexts else {"service_tier": tier}), provider, model)


def _has(model: ModelInfo, context: dict[str, str], moment: datetime) -> bool:
    return any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(moment)) and variant.prices.__dict__
        for variant in model.price_variants or ()
    )


def table_of(price: ModelPrice, provider: Provider, model: ModelInfo) -> Table | None:
    """The book's decimals as integers; None where input and output tokens do not settle the bill."""
    units = {key: value for key, value in price.__dict__.items() if value is not None and not key.startswith("_")}
    if units.keys() - _UNITS.keys() - _ON_DEMAND or _MORE_THAN_TEXT.search(model.id) or provider.id == "perplexity":
        return None
    rates = {_UNITS[key]: _steps(value) for key, value in units.items() if key in _UNITS}
    if "output" not in rates and "embed" in model.id:
        rates["output"] = {-1: 0}
    if not rates.keys() >= {"input", "output"}:
        return None
    return tiers_from_rates(rates)


def _steps(value: object) -> dict[int, int]:
    """One unit's rates by threshold."""
    from genai_prices.types import TieredPrices

    if isinstance(value, TieredPrices):
        return {-1: rate_from_usd(value.base), **{tier.start: rate_from_usd(tier.price) for tier in value.tiers}}
    assert isinstance(value, Decimal)
    return {-1: rate_from_usd(value)}


def context_window(provider: str, model_id: str, *, base_url: str | None = None) -> int | None:
    """The most input tokens that the book knows for a model; None when it does not say."""
    found = _find(provider, model_id, base_url)
    return found[1].context_window if found else None
