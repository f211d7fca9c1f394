"""What models can't take: the table, row by row."""

from __future__ import annotations

import pytest

from batchllm.cost import facts
from batchllm.providers.capabilities import adapt, gemini_thinks_by_budget, output_cap_default

SAMPLING = {"temperature": 0, "top_p": 0.5}


@pytest.mark.parametrize(
    ("provider", "model", "params", "made"),
    [
        # OpenAI: reasoning models.
        ("openai", "gpt-6-luna", {"max_tokens": 9, **SAMPLING}, {"max_completion_tokens": 9}),
        ("openai", "o3-2025-04-16", {"max_tokens": 9, "max_completion_tokens": 5, "logprobs": True}, {"max_completion_tokens": 5}),
        ("openai", "gpt-5-mini", {"temperature": 0, "reasoning_effort": "none"}, {"reasoning_effort": "none"}),
        ("openai", "gpt-5.4-mini", {"temperature": 0, "reasoning_effort": "none"}, {"temperature": 0, "reasoning_effort": "none"}),
        ("openai", "gpt-5-chat-latest", {"max_tokens": 9, **SAMPLING}, {"max_tokens": 9, **SAMPLING}),
        ("openai", "gpt-4.1-mini", {"max_tokens": 9, **SAMPLING}, {"max_tokens": 9, **SAMPLING}),
        ("openai", "gpt-oss-120b", SAMPLING, SAMPLING),
        # Elsewhere a name says nothing.
        ("openai-compatible", "gpt-6-luna", {"max_tokens": 9, **SAMPLING}, {"max_tokens": 9, **SAMPLING}),
        ("simulated", "gpt-6-luna", {"max_tokens": 9, **SAMPLING}, {"max_tokens": 9, **SAMPLING}),
        # Claude: sampling until Opus 4.7, one of the two since 4.1, at most 1.
        ("anthropic", "claude-opus-4-6", SAMPLING, {"temperature": 0}),
        ("anthropic", "claude-opus-4-6", {"top_p": 0.5}, {"top_p": 0.5}),
        ("anthropic", "claude-3-haiku-20240307", SAMPLING, SAMPLING),
        ("anthropic", "claude-opus-4-7", {**SAMPLING, "top_k": 5}, {}),
        ("anthropic", "claude-fable-5-2-20261001", SAMPLING, {}),
        ("anthropic", "claude-haiku-4-5-20251001", {"temperature": 1.5}, {"temperature": 1.0}),
        ("anthropic", "a-model-of-my-own", SAMPLING, SAMPLING),
        # The newest can't be made to call a tool, nor to think by a budget or not at all.
        ("anthropic", "claude-opus-5-5", {"tool_choice": {"type": "function", "function": {"name": "f"}}}, {}),
        ("anthropic", "claude-opus-5-5", {"tool_choice": "auto"}, {"tool_choice": "auto"}),
        ("anthropic", "claude-opus-4-8", {"tool_choice": "required"}, {"tool_choice": "required"}),
        ("anthropic", "claude-opus-5-5", {"thinking": {"type": "disabled"}}, {}),
        ("anthropic", "claude-opus-4-6", {"thinking": {"type": "enabled"}}, {"thinking": {"type": "enabled"}}),
        ("anthropic", "claude-opus-4-6", {"seed": 1, "frequency_penalty": 0.5, "logit_bias": {}}, {}),
        ("gemini", "gemini-3.8-flash", {"seed": 1, "frequency_penalty": 0.5, "logit_bias": {}}, {"seed": 1, "frequency_penalty": 0.5}),
        ("gemini", "gemini-3.8-flash", {"parallel_tool_calls": False}, {}),
    ],
)
def test_what_is_left(provider, model, params, made):
    adapted, warnings = adapt(provider, model, params)
    assert adapted == made
    dropped = params.keys() - made.keys() - {"max_tokens"}
    assert all(f"`{name}`" in " ".join(warnings) for name in dropped)
    assert all(warning.startswith(model) for warning in warnings)
    if params == made:
        # The very same mapping: whoever calls may tell by identity that nothing changed.
        assert adapted is params
        assert warnings == ()


@pytest.mark.parametrize(
    ("provider", "model", "params", "warnings"),
    [
        ("openai", "gpt-6-luna", {"temperature": 0}, ("gpt-6-luna takes no `temperature`: it is left out",)),
        # A value that holds anyway isn't worth a word, but 0 is not False.
        ("openai", "gpt-6-luna", {"temperature": 1, "presence_penalty": 0, "logprobs": False}, ()),
        ("anthropic", "claude-opus-5-5", {"reasoning_effort": "none"}, ("claude-opus-5-5 has no `reasoning_effort: none`: `low` is sent",)),
        ("anthropic", "claude-opus-4-6", SAMPLING, ("claude-opus-4-6 takes no `top_p` with a `temperature`: it is left out",)),
        ("anthropic", "claude-opus-4-6", {"temperature": 2}, ("claude-opus-4-6 takes a `temperature` of at most 1: that is sent for 2",)),
        ("anthropic", "claude-opus-5-5", {"tool_choice": "required"}, ("claude-opus-5-5 takes no forced `tool_choice`: it is left out",)),
        (
            "anthropic",
            "claude-sonnet-5-5",
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            ('claude-sonnet-5-5 takes no `thinking` with a budget: {"type":"adaptive"} is sent',),
        ),
        ("anthropic", "claude-opus-4-6", {"service_tier": "flex"}, ("claude-opus-4-6 has no `service_tier: flex`: it is left out",)),
    ],
)
def test_what_the_user_is_told(provider, model, params, warnings):
    assert adapt(provider, model, params)[1] == warnings


def test_anthropics_newer_version_takes_no_sampling_parameters():
    for version, made in (("2023-06-01", {"temperature": 0}), ("2026-10-21", {}), ("2027-01-01", {})):
        assert adapt("anthropic", "claude-haiku-4-5", {"temperature": 0}, version=version)[0] == made


@pytest.mark.parametrize(
    "model",
    ["claude-fable-5-2", "claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5", "claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5"],
)
def test_the_cap_that_is_sent_is_the_one_that_money_is_reserved_for(model):
    assert output_cap_default(model) == facts.limits("anthropic", model).max_output_tokens
    assert output_cap_default(f"{model}-20261001") == facts.limits("anthropic", f"{model}-20261001").max_output_tokens


@pytest.mark.parametrize(
    ("model", "cap"), [("claude-opus-5", 64_000), ("claude-3-haiku-20240307", 4096), ("claude-opus-4-20250514", 4096), ("mine", 4096)]
)
def test_the_cap_of_a_model_that_is_not_listed(model, cap):
    assert output_cap_default(model) == cap


@pytest.mark.parametrize(
    ("model", "by_budget"),
    [("gemini-2.5-pro", True), ("models/gemini-2.5-flash", True), ("gemini-3.8-flash", False), ("gemini-4-argon", False), ("gemma-4", False)],
)
def test_how_gemini_thinks(model, by_budget):
    assert gemini_thinks_by_budget(model) is by_budget
