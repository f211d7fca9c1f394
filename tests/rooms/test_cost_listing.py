"""What `prices` shows: every table of the book, cliffs, later prices, last days; and a fetched copy of the book."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from genai_prices import __version__

from batchllm.cost import book, listing, updates
from batchllm.cost.shutdowns import last_day
from batchllm.report.prices import model_lines, rate, table_lines

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
UTC_NOW = NOW.timestamp()
TODAY = NOW.date()


def one(model, **where):
    return listing.find(model, utc=UTC_NOW, **where)[0]


def test_a_model_with_all_its_tables():
    luna = one("gpt-6-luna")
    assert (luna.provider, luna.model, luna.last_day) == ("openai", "gpt-6-luna", None)
    assert set(luna.others) == {"batch", "flex", "priority", "fast"}
    assert [tier.above_input_tokens for tier in luna.table] == [-1, 272_000]
    assert (luna.table[0].input, luna.others["batch"][0].input) == (100_000, 50_000)
    assert luna.facts.max_output_tokens == 128_000
    lines = "\n".join(model_lines(luna, also=["aws"], today=TODAY))
    assert "When the whole input exceeds 272,000 tokens" in lines
    assert "Also sold by aws" in lines


def test_it_is_the_table_that_runs_are_priced_by():
    for model in ("gpt-6-luna", "gpt-4o", "gpt-5-mini"):
        assert one(model).table == book("openai", model, utc=UTC_NOW).tiers


@pytest.mark.parametrize(
    ("account", "model", "day"),
    [
        ("openai", "gpt-4o", date(2027, 1, 14)),
        ("openai", "gpt-4o-2024-08-06", date(2027, 1, 14)),
        ("openai", "gpt-4o-audio-preview", None),
        ("openai", "gpt-5.4-mini", None),
        ("azure", "gpt-4o", None),
        ("anthropic", "claude-sonnet-4-5-20250929", date(2026, 11, 30)),
    ],
)
def test_last_days(account, model, day):
    assert last_day(account, model) == day


def test_the_short_list_marks_cliffs_and_ends():
    lines = {line.split()[0]: line for line in table_lines(listing.usual(utc=UTC_NOW), today=TODAY)}
    assert lines["gpt-6-luna"].endswith("0.05 / 0.25 >272k x2")
    assert lines["gpt-5-mini"].endswith("ends 2026-12-11")
    assert lines["deepseek-flash"].endswith("peak hours")
    assert all(len(line) <= 84 for line in lines.values())


@pytest.mark.parametrize(
    ("pico", "text"), [(100_000, "0.10"), (12_500, "0.0125"), (12_500_000, "12.50"), (0, "0.00"), (1_000_000_000, "1,000.00"), (None, "-")]
)
def test_rates_as_people_read_them(pico, text):
    assert rate(pico) == text


def test_what_may_have_been_meant():
    assert listing.find("gpt6-luna", utc=UTC_NOW) == []
    assert listing.similar("gpt6-luna")[0] == "gpt-6-luna"
    assert [found.model for found in listing.containing("haiku-5", utc=UTC_NOW)] == ["claude-haiku-5-5"]


@pytest.mark.parametrize(
    ("model", "provider"), [("gpt-99", "openai"), ("claude-x", "anthropic"), ("gemini-9", "gemini"), ("o3", "openai"), ("my-llama", None)]
)
def test_whose_model_it_is(model, provider):
    assert listing.maker(model) == provider


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BATCHLLM_CACHE", str(tmp_path / "cache"))
    updates.current.cache_clear()
    yield tmp_path / "cache" / "prices.json"
    monkeypatch.undo()
    updates.current.cache_clear()


def published(count=12):
    model = {"id": "m-1", "match": {"equals": "m-1"}, "prices": {"input_mtok": 3, "output_mtok": 7}}
    return [{"id": f"p{n}", "name": f"P{n}", "api_pattern": f"https://p{n}", "models": [model]} for n in range(count)]


def test_a_fetched_copy_is_used_for_the_package_that_it_was_fetched_for(cache):
    assert updates.keep(json.dumps(published()).encode(), now=NOW) == 12
    assert updates.current().version == f"genai-prices {__version__}, fetched 2026-11-21"
    assert [found.table[0].output for found in listing.find("m-1", utc=UTC_NOW)][:1] == [7_000_000]
    kept = json.loads(cache.read_text())
    cache.write_text(json.dumps({**kept, "version": "0.0.1"}))
    updates.current.cache_clear()
    assert updates.current().version == f"genai-prices {__version__}"


@pytest.mark.parametrize("data", [b"<html>", b"{}", b"[]", b'[{"id": 3}]', json.dumps(published(3)).encode()])
def test_what_is_no_price_book_is_not_kept(cache, data):
    with pytest.raises(ValueError, match="no .*price book"):
        updates.keep(data, now=NOW)
    assert not cache.exists()


def test_a_damaged_copy_is_as_good_as_none(cache):
    cache.parent.mkdir()
    cache.write_bytes(b'{"version": ')
    assert updates.current().fetched is None
