"""The book's prices as ours, against the book's own arithmetic; and everything that must stay unknown."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot

from batchllm.core.nouns import Usage
from batchllm.cost import ModelFacts, book, limits, same_or_snapshot

NOW = datetime(2026, 11, 21, tzinfo=UTC).timestamp()
HOUR = 3600.0
DEEPSEEK = "https://api.deepseek.com/v1"
OWN = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google": "gemini",
}
HOSTS = {"deepseek": DEEPSEEK, "groq": "https://api.groq.com/openai/v1", "mistral": "https://api.mistral.ai/v1", "x-ai": "https://api.x.ai/v1"}
USAGES = [(1000, 50, 0, 0), (1000, 50, 800, 0), (1000, 50, 300, 700), (100_001, 7, 1, 1), (272_000, 7, 9, 3), (272_001, 7, 9, 3), (0, 9, 0, 0)]


def ours(account, model_id, *, utc, tier=None):
    if account in OWN:
        return book(OWN[account], model_id, utc=utc, service_tier=tier)
    return book("openai-compatible", model_id, base_url=HOSTS[account], utc=utc, service_tier=tier)


@pytest.mark.parametrize("tier", [None, "default", "flex", "priority", "fast"])
@pytest.mark.parametrize("account", [*OWN, *HOSTS])
def test_price_is_the_books_own(account, tier):
    """Every model, tier, cached and written tokens, three times of day: equal to the last pico-dollar to code that is not ours."""
    provider = next(provider for provider in get_snapshot().providers if provider.id == account)
    compared = 0
    for model in provider.models:
        for utc in (NOW, NOW + 2 * HOUR, NOW + 7.3 * HOUR):
            prices = ours(account, model.id, utc=utc, tier=tier)
            if prices is None:
                continue
            for total, output, cached, written in USAGES:
                spent = Usage(input_tokens=total, output_tokens=output, cached_input_tokens=cached, cache_write_tokens=written)
                for hour_cache in (False, True):
                    theirs = calc_price(
                        TheirUsage(
                            input_tokens=total,
                            output_tokens=output,
                            cache_read_tokens=cached,
                            cache_write_tokens=written,
                            **({"cache_write_1h_tokens": written} if hour_cache else {}),
                        ),
                        model.id,
                        provider_id=account,
                        genai_request_timestamp=datetime.fromtimestamp(utc, UTC),
                        price_context={"speed" if (account, tier) == ("anthropic", "fast") else "service_tier": tier} if tier else None,
                    )
                    price = prices.price(spent, hour_cache=hour_cache)
                    assert price == theirs.total_price * 10**12, (model.id, spent)
                    assert price <= prices.worst(total, output)
                    compared += 1
    assert compared > 100 or tier in ("priority", "fast")


@pytest.mark.parametrize(
    ("model_id", "rates"),
    [
        # The published prices of November 2026, in pico-dollars: input, output, cached, written, written for an hour; above the tier's threshold too.
        ("gpt-6-luna", [(-1, 100_000, 500_000, 10_000, 125_000, 125_000), (272_000, 200_000, 750_000, 20_000, 250_000, 250_000)]),
        ("gpt-6-luna-2026-08-11", [(-1, 100_000, 500_000, 10_000, 125_000, 125_000), (272_000, 200_000, 750_000, 20_000, 250_000, 250_000)]),
        ("gpt-5-mini", [(-1, 250_000, 2_000_000, 25_000, 250_000, 250_000)]),
        ("text-embedding-3-small", [(-1, 20_000, 0, 20_000, 20_000, 20_000)]),
    ],
)
def test_rates(model_id, rates):
    prices = book("openai", model_id, utc=NOW)
    assert [(t.above_input_tokens, t.input, t.output, t.cached_input, t.cache_write, t.cache_write_1h) for t in prices.tiers] == rates
    assert prices.version.startswith("genai-prices 0.")


@pytest.mark.parametrize(
    ("provider", "model_id", "base_url", "tier"),
    [
        ("openai", "gpt-6-nonesuch", None, None),
        ("openai", "ft:gpt-4o-2024-08-06:acme::x", None, None),
        ("openai", "gpt-6-luna", "http://127.0.0.1:8000/v1", None),
        ("openai", "gpt-6-luna", "https://api.openai.com.example.net/v1", None),
        ("openai-compatible", "gpt-4o", None, None),
        ("openai-compatible", "gpt-4o", "https://acme.openai.azure.com/openai/v1", None),
        ("openai-compatible", "openai/gpt-oss-120b", "https://api.groq.com.example.net/openai/v1", None),
        ("openai-compatible", "gpt-4o", "no url", None),
        ("ollama", "llama3.2", None, None),
        ("ollama", "gpt-4o", "https://api.openai.com/v1", None),
        # Dearer tiers without a rate of their own: the book alone would answer with the standard price.
        ("openai", "gpt-6-luna", None, "ultrafast"),
        ("openai", "gpt-4.1-2025-04-14x", None, None),
        ("anthropic", "claude-sonnet-5-5", None, "priority"),
        # The bill is more than tokens: searches, audio, images.
        ("openai", "gpt-5-search-api", None, None),
        ("openai", "gpt-4o-audio-preview", None, None),
        ("openai", "gpt-image-1", None, None),
        ("openai", "whisper-1", None, None),
        ("openai-compatible", "sonar", "https://api.perplexity.ai", None),
        # No output price, and no embedding model either; or no prices at all, which the book's arithmetic calls 0.
        ("openai", "gpt-realtime-whisper", None, None),
        ("openai", "omni-moderation-latest", None, None),
    ],
)
def test_unknown_stays_unknown(provider, model_id, base_url, tier):
    assert book(provider, model_id, base_url=base_url, utc=NOW, service_tier=tier) is None


@pytest.mark.parametrize("tier", ["flex", "auto", "standard", ""])
def test_tiers_that_cost_at_most_the_standard_price(tier):
    plain, asked = (book("openai", "gpt-4o-mini", utc=NOW, service_tier=t) for t in (None, tier))
    assert asked.tiers == plain.tiers


def test_known_tiers():
    standard, flex, priority = (book("openai", "gpt-6-luna", utc=NOW, service_tier=tier).tiers[0].output for tier in (None, "flex", "priority"))
    assert (flex, standard, priority) == (250_000, 500_000, 1_000_000)


def test_host_settles_what_the_provider_name_does_not():
    by_host = book("openai-compatible", "gpt-6-luna", base_url="https://API.openai.com/v1/", utc=NOW)
    assert by_host == book("openai", "gpt-6-luna", utc=NOW)
    assert book("openai", "deepseek-flash", base_url=DEEPSEEK, utc=NOW) is not None


@pytest.mark.parametrize(
    ("hour", "input_rate", "until"),
    [(0.0, 150_000, 1), (1.0, 300_000, 4), (3.99, 300_000, 4), (4.0, 150_000, 6), (7.0, 300_000, 10), (11.0, 150_000, 25)],
)
def test_peak_hours(hour, input_rate, until):
    """The price changes with the hour; the bound holds for a request that is billed in the next one."""
    prices = book("openai-compatible", "deepseek-flash", base_url=DEEPSEEK, utc=NOW + hour * HOUR)
    assert prices.tiers[0].input == input_rate
    assert prices.valid_until_utc == NOW + until * HOUR
    assert prices.worst(1, 1) == 300_000 + 1_200_000


def test_a_change_inside_a_quarter_of_an_hour_is_not_missed(monkeypatch):
    from genai_prices.types import TimeOfDateConstraint

    provider = next(provider for provider in get_snapshot().providers if provider.id == "deepseek")
    model = next(model for model in provider.models if model.id == "deepseek-flash")
    for entry in model.prices:
        if isinstance(entry.constraint, TimeOfDateConstraint):
            monkeypatch.setattr(entry.constraint, "start_time", entry.constraint.start_time.replace(minute=7))
    from batchllm.cost import pricebook

    pricebook._resolve.cache_clear()
    rates = [
        book("openai-compatible", "deepseek-flash", base_url=DEEPSEEK, utc=NOW + HOUR + minute * 60).tiers[0].input
        for minute in (0, 6.9, 7, 14.9, 15)
    ]
    pricebook._resolve.cache_clear()
    assert rates == [150_000, 150_000, 300_000, 300_000, 300_000]


def test_a_dated_price_is_bounded_by_the_next_one():
    before = datetime(2026, 10, 11, 12, tzinfo=UTC).timestamp()
    assert book("openai", "gpt-6-luna", utc=before, service_tier="priority") is None
    flex = book("openai", "gpt-6-luna", utc=before, service_tier="flex")
    assert flex.tiers[0].input == 100_000
    assert flex.valid_until_utc == datetime(2026, 10, 12, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("model_id", "version", "input_rate"),
    [
        ("gpt-6-luna", "simulated, genai-prices", 100_000),
        ("claude-haiku-4-5", "simulated, genai-prices", 1_000_000),
        ("gemini-2.5-flash", "simulated, genai-prices", 300_000),
        ("sim-small", "simulated", 100_000),
        ("llama3.2", "simulated", 100_000),
    ],
)
def test_simulated(model_id, version, input_rate):
    prices = book("simulated", model_id, utc=NOW)
    assert prices.version.startswith(version)
    assert prices.tiers[0].input == input_rate


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-6-luna", "gpt-6-luna", True),
        ("gpt-6-luna", "gpt-6-luna-2026-08-11", True),
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001", True),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku-20241022", True),
        ("gpt-6-luna-2026-08-11", "gpt-6-luna", False),
        ("gpt-6", "gpt-6-luna-2026-08-11", False),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4o", "gpt-4o-2024-13-01", False),
        ("gpt-4o", "gpt-4o-2024-0101", False),
        ("gpt-4o", "gpt-4o-2024-01-01-x", False),
        ("llama", "model.gguf", False),
    ],
)
def test_snapshots(asked, answered, same):
    assert same_or_snapshot(asked, answered) is same


@pytest.mark.parametrize(
    ("provider", "model_id", "base_url", "window", "output"),
    [
        ("openai", "gpt-6-luna", None, 1_050_000, 128_000),
        ("openai", "gpt-4o-mini-2024-07-18", None, 128_000, 16_384),
        ("openai", "text-embedding-3-small", None, 8_191, 0),
        ("anthropic", "claude-haiku-4-5-20251001", None, 200_000, 64_000),
        ("openai", "o3", None, 200_000, None),
        ("openai", "gpt-4o-nonesuch", None, None, None),
        ("openai-compatible", "deepseek-flash", DEEPSEEK, 1_000_000, 393_216),
        ("openai-compatible", "gpt-4o", "http://127.0.0.1:8000/v1", None, None),
        ("ollama", "llama3.2", None, None, None),
        ("simulated", "gpt-6-luna", None, 1_050_000, 128_000),
        ("simulated", "gemini-4-argon", None, 1_048_576, 4_096),
        ("simulated", "sim-small", None, 128_000, 4_096),
    ],
)
def test_limits(provider, model_id, base_url, window, output):
    assert limits(provider, model_id, base_url=base_url) == ModelFacts(context_window=window, max_output_tokens=output)


def test_names_that_answers_bring_are_not_kept_for_ever():
    lookups = get_snapshot()._lookup_cache
    before = len(lookups)
    for number in range(50):
        book("openai", f"made-up-{number}", utc=NOW)
    assert len(lookups) == before
