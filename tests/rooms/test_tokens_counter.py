"""Counting before sending: frames, parts, tools; the bound that money is reserved by; what has no bound."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batchllm.core import words
from batchllm.tokens import Learnt, counter, output_cap
from batchllm.tokens.classes import estimate_text, utf8_length
from batchllm.tokens.walk import FOREIGN, OPENAI, Walker


def user(content, **more):
    return [{"role": "user", "content": content, **more}]


def by_words(*, exact=True, own_host=True, model_id="gpt-4o"):
    """A walker whose tokenizer is one token a word."""
    return Walker(
        name="words",
        exact=exact,
        text_tokens=lambda text: len(text.split()),
        frame=OPENAI if own_host else FOREIGN,
        model_id=model_id,
        own_host=own_host,
    )


@pytest.mark.parametrize(
    ("messages", "about", "most"),
    [
        ([], 3, 32),
        (user("a b c"), 3 + 4 + 3, 32 + 8 + 4 + 3),
        (user(""), 3 + 4, 32 + 8 + 4),
        ([*user("a b"), {"role": "assistant", "content": "c"}], 3 + 8 + 3, 32 + 16 + 13 + 3),
        # Parts, with a little room for each seam.
        (user([{"type": "text", "text": "a b"}, {"type": "text", "text": "c"}]), 3 + 4 + 3, 32 + 12 + 3 + 16),
        (user(["a b"]), 3 + 4 + 2, 32 + 12 + 2 + 8),
        # A name: its JSON bytes and frame bound it.
        (user("a", name="bob"), 3 + 4 + 1 + 2, 32 + 12 + 1 + len('"bob"') + len("name") + 16),
        (user("a", name=None), 3 + 4 + 1, 32 + 12 + 1),
    ],
)
def test_messages(messages, about, most):
    assert by_words().both(messages, {}) == (about, most)


def test_foreign_models_are_bounded_by_bytes():
    walker = by_words(exact=False, own_host=False)
    assert walker.both(user("zwei Wörter 😀"), {}) == (3 + 4 + 3, 256 + 16 + 4 + len("zwei Wörter 😀".encode()))


CALL = {"id": "call_1", "type": "function", "function": {"name": "lookup", "arguments": '{"q": 1}'}}
TOOL = {
    "type": "function",
    "function": {"name": "lookup", "description": "Finds it.", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}}},
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}}}}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(
    ("messages", "params", "grows_by_at_least"),
    [
        ([{"role": "assistant", "content": None, "tool_calls": [CALL]}], {}, 60),
        ([{"role": "tool", "content": "ok", "tool_call_id": "call_1"}], {}, 8),
        ([{"role": "assistant", "content": "x", "reasoning_content": "long " * 50}], {}, 250),
        (user("x"), {"tools": [TOOL]}, 100),
        (user("x"), {"functions": [TOOL["function"]]}, 100),
        (user("x"), {"response_format": SCHEMA}, 90),
        (user("x"), {"response_format": {"type": "json_object"}}, 20),
        # A parameter that nobody here knows, with text that may reach the model.
        (user("x"), {"documents": [{"text": "y" * 500}]}, 500),
        (user("x"), {"chat_template_kwargs": {"preamble": "y" * 100}}, 100),
    ],
)
def test_what_else_becomes_input(messages, params, grows_by_at_least, exact):
    walker = by_words(exact=exact)
    plain = walker.both([{"role": message["role"], "content": message["content"]} for message in messages], {})
    full = walker.both(messages, params)
    assert full[0] > plain[0]
    assert full[1] >= plain[1] + grows_by_at_least
    assert full[0] <= full[1]
    assert (walker.estimate(messages, params), walker.bound(messages, params)) == full


def test_parameters_that_cost_no_input():
    params = {
        "temperature": 0,
        "max_tokens": 16,
        "stop": ["x" * 99],
        "user": "u" * 99,
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "top_a": 3,
    }
    assert by_words().both(user("x"), params) == by_words().both(user("x"), {})


@pytest.mark.parametrize(
    ("messages", "params"),
    [
        (user([{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]), {}),
        (user([{"type": "file", "file": {"file_id": "f"}}]), {}),
        (user([{"type": "video_url", "video_url": {"url": "x"}}]), {}),
        (user([{"type": "text", "text": None}]), {}),
        (user([7]), {}),
        ([{"role": "assistant", "content": "x", "audio": {"id": "a"}}], {}),
        (user("x"), {"web_search_options": {}}),
        (user("x"), {"prediction": {"type": "content", "content": "x"}}),
        (user("x"), {"modalities": ["text", "audio"]}),
        (user("x"), {"tools": [TOOL, {"type": "web_search"}]}),
        (user("x"), {"prompt_cache_retention": "24h"}),
    ],
)
def test_no_bound(messages, params):
    about, most = by_words().both([*user("first"), *messages, *user("last")], params)
    assert most is None
    assert about > 10


@pytest.mark.parametrize(
    ("model_id", "detail", "most"),
    [
        ("gpt-4o", "high", 85 + 8 * 170),
        ("gpt-4o", None, 85 + 8 * 170),
        ("gpt-4o-2024-08-06", "low", 85),
        ("ft:gpt-4o-2024-08-06:acme", "low", 85),
        ("gpt-4o-mini", "high", 2833 + 8 * 5667),
        ("gpt-5", "high", 70 + 8 * 140),
        ("o3", "auto", 75 + 8 * 150),
        ("gpt-6-luna", "high", 3000),
        ("gpt-6-luna", "auto", 12_000),
        ("gpt-6-luna", "low", 308),
        ("nobody-knows", "low", None),
    ],
)
def test_images_at_their_maximum(model_id, detail, most):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000, **({"detail": detail} if detail else {})}}
    about, bound = by_words(model_id=model_id).both(user([image]), {})
    assert bound == (None if most is None else most + 32 + 8 + 4 + 8)
    assert about > 50
    assert bound is None or about <= bound
    # The same name at somebody else's host promises nothing.
    assert by_words(model_id=model_id, own_host=False).bound(user([image]), {}) is None


def test_extras_are_counted_once_and_not_kept_for_ever():
    counted = []

    def count(text):
        counted.append(text)
        return 1

    walker = Walker(name="", exact=True, text_tokens=count, frame=OPENAI, model_id="", own_host=True)
    for _ in range(3):
        walker.both([], {"tools": [TOOL]})
    assert len(counted) == 3
    for number in range(1000):
        walker.both([], {"documents": [str(number)]})
    assert len(walker._extras) <= 256


TEXTS = [
    ("", 0, 0),
    ("Hello world", 2, 3),
    ("Label this product review as positive, negative or mixed: great value!", 12, 18),
    ("def add(a, b):\n    return a + b\n", 10, 18),
    ("今天的天气非常好。我们决定去公园散步。看看春天的花。", 15, 26),
    ("Съешь же ещё этих мягких французских булок, да выпей чаю.", 12, 26),
    ("오늘은 날씨가 매우 좋아서 공원으로 산책을 가기로 했습니다.", 15, 32),
    ("1234567890" * 3, 10, 20),
    ("😀🎉👍", 3, 7),
    ("\ud800", 1, 3),
]


@pytest.mark.parametrize(("text", "low", "high"), TEXTS)
def test_estimate_is_near(text, low, high):
    """Ranges around the counts that o200k_base gives for these texts."""
    assert low <= estimate_text(text) <= high


@example("-\n" * 8)
@given(st.text() | st.text(alphabet="-\n a😀é字"))
def test_estimate_never_exceeds_bytes(text):
    assert 0 <= estimate_text(text) <= utf8_length(text) == len(text.encode("utf-8", "surrogatepass"))
    assert (estimate_text(text) > 0) == bool(text)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["user", "system"]),
                "content": st.text() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()})),
            }
        )
    )
)
def test_bound_covers_the_estimate(messages):
    about, most = counter("openai-compatible", "some-model", search=[]).both(messages, {"tools": [TOOL], "response_format": SCHEMA})
    assert about <= most


@pytest.mark.parametrize(
    ("provider", "model_id", "base_url", "name", "exact"),
    [
        ("simulated", "gpt-4o", None, "simulator", True),
        ("openai", "gpt-4o", None, "estimate", False),
        ("openai-compatible", "llama", "http://127.0.0.1/v1", "estimate", False),
        ("ollama", "llama3.2", None, "estimate", False),
    ],
)
def test_choice_without_vocabulary(provider, model_id, base_url, name, exact):
    chosen = counter(provider, model_id, base_url=base_url, search=[])
    assert (chosen.name, chosen.exact) == (name, exact)


def test_simulator_counts_as_the_simulated_provider_does():
    messages = [*user("one two three"), *user([{"type": "text", "text": "four"}, {"type": "image_url", "image_url": {"url": "x"}}])]
    tokens = words.count_messages(messages)
    chosen = counter("simulated", "sim-small")
    assert chosen.both(messages, {"tools": [TOOL]}) == (tokens, tokens) == (chosen.estimate(messages, {}), chosen.bound(messages, {}))


@pytest.mark.parametrize(
    ("params", "cap"),
    [
        ({}, None),
        ({"max_tokens": 16}, 16),
        ({"max_completion_tokens": 20}, 20),
        ({"max_tokens": 16, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 30, "max_completion_tokens": 20}, 30),
        ({"max_tokens": None, "max_completion_tokens": 20}, 20),
        ({"max_tokens": -1}, None),
        ({"max_tokens": -1, "max_completion_tokens": 20}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": "16"}, None),
        ({"max_tokens": True}, None),
    ],
)
def test_output_cap(params, cap):
    assert output_cap(params) == cap


def test_learnt_ratio():
    learnt = Learnt()
    assert learnt.ratio("a") == 1.0
    learnt.observe("a", 100, 0)
    learnt.observe("a", 0, 100)
    assert learnt.ratio("a") == 1.0
    learnt.observe("a", 100, 200)
    assert 1.0 < learnt.ratio("a") < 1.3
    for _ in range(300):
        learnt.observe("a", 100, 130)
    assert learnt.ratio("a") == pytest.approx(1.3, rel=0.02)
    assert learnt.corrected("a", 1000) == pytest.approx(1300, rel=0.02)
    assert learnt.ratio("b") == 1.0
    # One absurd usage moves it little; a change that stays is followed.
    learnt.observe("a", 100, 10**9)
    assert learnt.ratio("a") < 1.4
    for _ in range(500):
        learnt.observe("a", 100, 90)
    assert learnt.ratio("a") == pytest.approx(0.9, rel=0.02)


def test_rooms_are_light_to_import():
    code = (
        "import sys, batchllm.tokens, batchllm.cost; print(sorted({'tiktoken', 'genai_prices', 'pydantic', 'regex', 'requests'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
