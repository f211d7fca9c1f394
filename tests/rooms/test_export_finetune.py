"""Training data: each provider's form, what it can't be shown, its rules about the whole file, and the price."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from batchllm.core.errors import SpecError
from batchllm.cost.training import training_usd_per_million
from batchllm.export.finetune import RULES, Count, Unfit, broken_rules, example
from batchllm.report.since import since
from batchllm.store.read import Since

SYSTEM = {"role": "system", "content": "You label."}
USER = {"role": "user", "content": "Label: fine"}
ANSWER = {"role": "assistant", "content": "positive"}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
CALL = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]}
PICTURE = {"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}


@pytest.mark.parametrize(
    ("trainer", "messages", "params", "answer", "wanted"),
    [
        ("openai", [SYSTEM, USER], {"temperature": 0}, ANSWER, {"messages": [SYSTEM, USER, ANSWER]}),
        ("openai", [USER], {"tools": TOOLS}, CALL, {"messages": [USER, CALL], "tools": TOOLS}),
        ("openai", [PICTURE], {}, ANSWER, {"messages": [PICTURE, ANSWER]}),
        ("anthropic", [SYSTEM, USER], {}, ANSWER, {"system": "You label.", "messages": [USER, ANSWER]}),
        (
            "anthropic",
            [USER, {"role": "user", "content": [{"type": "text", "text": "Quick."}]}],
            {},
            ANSWER,
            {"messages": [{"role": "user", "content": "Label: fine\n\nQuick."}, ANSWER]},
        ),
        (
            "gemini",
            [SYSTEM, USER],
            {},
            ANSWER,
            {
                "systemInstruction": {"parts": [{"text": "You label."}]},
                "contents": [{"role": "user", "parts": [{"text": "Label: fine"}]}, {"role": "model", "parts": [{"text": "positive"}]}],
            },
        ),
    ],
)
def test_the_forms(trainer: Any, messages: Any, params: Any, answer: Any, wanted: Any) -> None:
    assert example(trainer, messages, params, answer) == wanted


@pytest.mark.parametrize(
    ("trainer", "messages", "params", "answer", "why"),
    [
        ("openai", [USER], {}, {"role": "assistant", "content": ""}, "the answer is empty"),
        ("openai", [SYSTEM], {}, ANSWER, "no message is the user's"),
        ("openai", [{"role": "user", "content": [{"type": "input_audio"}]}], {}, ANSWER, "'input_audio'"),
        ("anthropic", [USER], {"tools": TOOLS}, CALL, "has no tools"),
        ("anthropic", [PICTURE], {}, ANSWER, "'image_url'"),
        ("anthropic", [{"role": "assistant", "content": "Hello."}, USER], {}, ANSWER, "must be the user's"),
        ("gemini", [USER, {"role": "tool", "content": "42"}], {}, ANSWER, "role 'tool'"),
        ("gemini", [{"role": "user", "content": " "}], {}, ANSWER, "a text in every message"),
    ],
)
def test_what_a_provider_cant_be_shown(trainer: Any, messages: Any, params: Any, answer: Any, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        example(trainer, messages, params, answer)


def counted(examples: int, *, tokens: int = 10, size: int = 1) -> Count:
    count = Count()
    for nth in range(examples):
        count.add(b"%d" % nth * size, tokens, most_tokens=32_000)
    return count


def test_rules_about_the_whole() -> None:
    assert broken_rules("openai", counted(10), None) == []
    assert "fewer than 10" in broken_rules("openai", counted(9), None)[0]
    assert "at most 1,000" in broken_rules("anthropic", counted(32), counted(1_001))[0]
    assert "more than 32,000 tokens" in broken_rules("anthropic", counted(32, tokens=32_001), None)[0]
    big = counted(100)
    big.size = RULES["gemini"].most_bytes + 1
    assert "1,024 MiB" in broken_rules("gemini", big, counted(1))[0]


def test_equal_examples_are_counted() -> None:
    count = Count()
    for line in (b"a", b"b", b"a", b"a"):
        count.add(line, 1, most_tokens=10)
    assert (count.examples, count.repeats, count.tokens) == (4, 2, 4)


@pytest.mark.parametrize(
    ("model", "usd"),
    [("gpt-4.1-mini", Decimal(5)), ("gpt-4.1-mini-2025-04-14", Decimal(5)), ("gpt-4.1", Decimal(25)), ("gpt-4.1-micro", None), ("gpt-6-luna", None)],
)
def test_the_price_of_training(model: str, usd: Decimal | None) -> None:
    assert training_usd_per_million(model) == usd


@pytest.mark.parametrize(
    ("text", "column", "value"),
    [
        ("3", "run", 3),
        ("2026-11-20", "finished_at", "2026-11-20T00:00:00.000Z"),
        ("2026-11-20T22:30:00+01:00", "finished_at", "2026-11-20T21:30:00.000Z"),
        ("90m", "finished_at", "2001-09-09T00:16:40.250Z"),
        ("2d", "finished_at", "2001-09-07T01:46:40.250Z"),
    ],
)
def test_since(text: str, column: Any, value: Any) -> None:
    assert since(text, now_utc=1_000_000_000.25) == Since(column=column, value=value)


@pytest.mark.parametrize("text", ["", "yesterday", "-3", "3w", "2026-13-01"])
def test_since_when(text: str) -> None:
    with pytest.raises(SpecError, match="--since"):
        since(text, now_utc=1e9)
