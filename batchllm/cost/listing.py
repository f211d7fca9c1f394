"""What the price book says of a model, for people: every table, the cliffs, what changes when, until when it lives.

The trap: the book knows a model at its maker and at a dozen resellers, at other prices. Makers come first, and each entry says where it is from.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from batchllm.cost.facts import ModelFacts, documented, known_models
from batchllm.cost.pricebook import changes, table_of
from batchllm.cost.prices import Table
from batchllm.cost.shutdowns import last_day
from batchllm.cost.updates import current

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, Provider

MAKERS = ("openai", "anthropic", "google", "mistral", "deepseek", "groq", "x-ai", "cohere", "voyageai", "together", "openrouter")
"""Whose entry is shown first when several have a model of this name."""
_AS_STANDARD = frozenset({"default", "standard", "auto"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One model at one provider."""

    provider: str
    """The book's word: `openai`, `google`, `azure`..."""
    model: str
    name: str | None
    table: Table | None
    """Standard prices; None: not settled by input and output tokens alone, or not known."""
    others: Mapping[str, Table]
    """Prices by another word: `batch`, `flex`, `priority`, `fast`."""
    later: tuple[tuple[float, Table], ...]
    """Standard prices that come into force later, with the time (seconds since 1970); peak hours within two days, too."""
    facts: ModelFacts
    last_day: date | None
    deprecated: bool
    note: str | None
    """The book's own remark on these prices."""


def find(model_id: str, *, provider: str | None = None, utc: float) -> list[Listed]:
    """The entries of exactly this model (or a dated name of it), makers first; empty when there is none."""
    found: list[Listed] = []
    for seller in _providers(provider):
        model = seller.find_model(model_id)
        if model is not None:
            found.append(_listed(seller, model, utc))
    return found


def containing(words: str, *, provider: str | None = None, utc: float) -> list[Listed]:
    """The makers' models whose id contains these words, each at its first maker; with a provider, that one's (all for an empty text)."""
    words = words.lower()
    wanted = _providers(provider) if provider is not None else [seller for seller in _providers(None) if seller.id in MAKERS[:6]]
    found: dict[str, tuple[Provider, ModelInfo]] = {}
    for seller in wanted:
        for model in seller.models:
            if words in model.id.lower():
                found.setdefault(model.id, (seller, model))
    return [_listed(seller, model, utc) for seller, model in found.values()]


def usual(*, utc: float) -> list[Listed]:
    """The models that are documented here: the short list."""
    return [listed for account, model_id in known_models() for listed in find(model_id, provider=account, utc=utc)[:1]]


def similar(model_id: str, *, provider: str | None = None) -> list[str]:
    """Ids that may have been meant, best first."""
    ids = dict.fromkeys(model.id for seller in _providers(provider) for model in seller.models)
    bare = model_id.lower().rpartition("/")[2]
    close = difflib.get_close_matches(bare, ids, n=3, cutoff=0.6)
    return list(dict.fromkeys([*close, *(name for name in ids if bare and bare in name.lower())]))[:5]


def maker(model_id: str) -> str | None:
    """The spec's provider whose own model this is (`openai`, `anthropic`, `gemini`); None when none of them has it. gpt-, claude- and gemini- ids are known without the book."""
    for start, provider in (("gpt-", "openai"), ("text-embedding-", "openai"), ("claude-", "anthropic"), ("gemini-", "gemini")):
        if model_id.startswith(start):
            return provider
    for account, provider in (("openai", "openai"), ("anthropic", "anthropic"), ("google", "gemini")):
        if any(model.id == model_id for seller in _providers(account) for model in seller.models):
            return provider
    return None


def providers() -> list[str]:
    """Every provider of the book."""
    return [seller.id for seller in _providers(None)]


def _providers(provider: str | None) -> list[Provider]:
    sellers: Iterable[Provider] = current().snapshot.providers
    if provider is not None:
        return [seller for seller in sellers if seller.id == provider]
    return sorted(sellers, key=lambda seller: (MAKERS.index(seller.id) if seller.id in MAKERS else len(MAKERS), seller.id))


def _listed(seller: Provider, model: ModelInfo, utc: float) -> Listed:
    now = datetime.fromtimestamp(utc, UTC)
    facts = documented(seller.id, model.id)
    window = facts.context_window if facts.context_window is not None else model.context_window
    return Listed(
        provider=seller.id,
        model=model.id,
        name=model.name,
        table=table_of(model.get_prices(now, None), seller, model),
        others=dict(_others(seller, model, now)),
        later=tuple(_later(seller, model, now)),
        facts=ModelFacts(context_window=window, max_output_tokens=facts.max_output_tokens),
        last_day=last_day(seller.id, model.id),
        deprecated=bool(model.deprecated),
        note=model.price_comments or None,
    )


def _others(seller: Provider, model: ModelInfo, now: datetime) -> Iterator[tuple[str, Table]]:
    for variant in model.price_variants or ():
        ((key, word), *more) = variant.when.items()
        active = variant.constraint is None or variant.constraint.active(now)
        if more or word in _AS_STANDARD or not active or not variant.prices.__dict__:
            continue
        table = table_of(model.get_prices(now, {key: word}), seller, model)
        if table is not None:
            yield word, table


def _later(seller: Provider, model: ModelInfo, now: datetime) -> Iterator[tuple[float, Table]]:
    last = table_of(model.get_prices(now, None), seller, model)
    for moment in sorted(set(changes(model, now))):
        table = table_of(model.get_prices(moment, None), seller, model)
        if table is not None and table != last:
            yield moment.timestamp(), table
            last = table
