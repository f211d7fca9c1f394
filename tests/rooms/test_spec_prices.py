"""A file of own prices: for `prices --file` and for the spec's key `prices`."""

from __future__ import annotations

from decimal import Decimal

import pytest

from batchllm.core.errors import SpecError
from batchllm.engine.facts import documented, price_finder
from batchllm.spec import build
from batchllm.spec.prices import load_prices

MODELS = {"a": {"provider": "openai", "model": "gpt-6-luna"}, "b": {"provider": "openai", "model": "gpt-6-luna", "price": {"input": 9, "output": 9}}}


def job(folder, **keys):
    return build({"models": MODELS, "routes": [{"use": ["a", "b"]}], **keys}, folder=folder)


def test_models_take_their_price_from_the_file_unless_they_have_one(tmp_path):
    (tmp_path / "prices.yaml").write_text("gpt-6-luna: {input: 0.07, output: 0.31, cached_input: 0.01}\nother: {input: 1, output: 2}\n")
    spec = job(tmp_path, prices="prices.yaml")
    assert [model.price.input for model in spec.models.values()] == [Decimal("0.07"), 9]
    assert price_finder(spec.models["a"], "")("gpt-6-luna", 0.0, None).tiers[0].output == 310_000
    assert job(tmp_path).models["a"].price is None


@pytest.mark.parametrize(
    ("provider", "model"),
    [("openai", "gpt-6-luna"), ("anthropic", "claude-sonnet-5-5"), ("gemini", "gemini-3.8-flash"), ("openai-compatible", "gpt-6-luna")],
)
def test_a_proxy_in_front_of_a_provider_changes_neither_the_bill_nor_the_model(provider, model):
    proxy = "https://proxy.example/v1"
    spec = build({"models": {"m": {"provider": provider, "model": model, "base_url": proxy, "api_key_env": "none"}}})
    prices, own = (price_finder(spec.models["m"], base)(model, 1.79e9, None) for base in (proxy, ""))
    facts = documented(spec.models["m"], proxy)
    if provider == "openai-compatible":
        # Whose list it is on, nobody says.
        assert prices is None
    else:
        assert prices is not None
        assert prices == own
        assert facts == documented(spec.models["m"], "")
        assert facts.max_output_tokens is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no price"),
        ("m: {input: 1}", "p.yaml:1:1: m.output: a price needs both"),
        ("m: {inptu: 1, input: 1, output: 1}", "m.inptu: unknown key; did you mean `input`?"),
        ("m: 3", "p.yaml:1:4: m: expected the prices of a model"),
        ("m: {input: -1, output: 1}", "m.input: must be at least 0"),
        ("m: {input: cheap, output: 1}", "m.input: expected a number, got 'cheap'"),
    ],
)
def test_mistakes_have_their_place(tmp_path, text, words):
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(SpecError, match=words.replace("?", r"\?").replace("[", r"\[")):
        load_prices(tmp_path / "p.yaml", name="p.yaml")


@pytest.mark.parametrize("name", ["gone.yaml", 3, ""])
def test_the_specs_key_is_checked_like_others(tmp_path, name):
    with pytest.raises(SpecError, match="prices"):
        job(tmp_path, prices=name)
