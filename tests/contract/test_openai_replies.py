"""Answers on the OpenAI wire, with every liberty that "compatible" servers take."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, Kind, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.openai import OpenAIChat
from batchllm.spec.hosts import PLAIN

CODEC = OpenAIChat(base_url="https://h/v1", model="m", api_key=None, headers={}, host=PLAIN)


USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def answer(choice: dict[str, Any], headers: dict[str, str] | None = None, **top: Any) -> Reply | Fault:
    return CODEC.decode(HttpReply(status=200, headers=headers or {}, body=dumps({"choices": [choice], **top})))


def test_a_full_answer():
    body = {
        "id": "chatcmpl-B9x",
        "model": "gpt-6-luna-2026-08-11",
        "service_tier": "default",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Lima", "refusal": None}}],
        "usage": {
            "prompt_tokens": 1210,
            "completion_tokens": 64,
            "total_tokens": 1274,
            "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 100},
            "completion_tokens_details": {"reasoning_tokens": 48},
        },
        "error": None,
    }
    reply = CODEC.decode(HttpReply(status=200, headers={"x-request-id": "req_1"}, body=b"\n\n  " + dumps(body)))
    assert reply == Reply(
        text="Lima",
        finish="stop",
        finish_raw="stop",
        usage=Usage(input_tokens=1210, output_tokens=64, cached_input_tokens=1024, cache_write_tokens=100, reasoning_tokens=48),
        provider_model="gpt-6-luna-2026-08-11",
        service_tier="default",
        request_id="req_1",
    )


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}}


@pytest.mark.parametrize(
    ("finish", "message", "expected"),
    [
        ("stop", {"content": "a"}, ("a", "stop", (), None)),
        ("stop", {"content": ""}, ("", "stop", (), None)),
        ("stop", {"content": None}, ("", "stop", (), None)),
        ("stop", {}, ("", "stop", (), None)),
        ("eos", {"content": "a"}, ("a", "stop", (), None)),
        ("STOP", {"content": "a"}, ("a", "stop", (), None)),
        ("length", {"content": None}, ("", "length", (), None)),
        ("model_length", {"content": "a"}, ("a", "length", (), None)),
        ("content_filter", {"content": None}, (None, "filter", (), None)),
        ("tool_calls", {"content": None, "tool_calls": [CALL]}, (None, "tool", (CALL,), None)),
        ("stop", {"content": None, "tool_calls": [CALL]}, (None, "tool", (CALL,), None)),
        ("stop", {"content": "a", "tool_calls": []}, ("a", "stop", (), None)),
        (
            "function_call",
            {"function_call": {"name": "f", "arguments": "{}"}},
            (None, "tool", ({"type": "function", "function": {"name": "f", "arguments": "{}"}},), None),
        ),
        (
            "tool_calls",
            {"tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]},
            (None, "tool", ({"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},), None),
        ),
        ("stop", {"content": None, "refusal": "no"}, (None, "refusal", (), "no")),
        ("stop", {"content": [{"type": "refusal", "refusal": "no"}]}, (None, "refusal", (), "no")),
        (
            "stop",
            {"content": [{"type": "text", "text": "a"}, "b", {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": "c"}]},
            ("abc", "stop", (), None),
        ),
        ("stop", {"content": []}, ("", "stop", (), None)),
        ("pause", {"content": "a"}, ("a", "unknown", (), None)),
        (None, {"content": None}, (None, "unknown", (), None)),
    ],
)
def test_message_and_finish(finish, message, expected):
    reply = answer({"finish_reason": finish, "message": message})
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish, reply.tool_calls, reply.refusal) == expected
    assert reply.finish_raw == finish


def test_message_left_out_when_thinking_used_the_cap():
    reply = answer({"finish_reason": "length", "index": 0}, usage={"prompt_tokens": 10, "total_tokens": 74})
    assert (reply.text, reply.finish, reply.usage) == ("", "length", Usage(input_tokens=10, output_tokens=64))


@pytest.mark.parametrize(
    "choice", [{"finish_reason": "stop"}, {"finish_reason": "stop", "message": "a"}, {"finish_reason": "stop", "message": {"content": 5}}]
)
def test_a_choice_that_is_none(choice):
    fault = answer(choice, usage=USAGE, id="chatcmpl-1")
    assert (fault.kind, fault.billed, fault.usage, fault.request_id) == (Kind.PROTOCOL, "yes", Usage(input_tokens=12, output_tokens=3), "chatcmpl-1")


def test_first_of_several_choices():
    body = dumps({"choices": [{"finish_reason": "stop", "message": {"content": text}} for text in ("one", "two")]})
    assert CODEC.decode(HttpReply(status=200, body=body)).text == "one"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, (12, 3, 0, 0, 0)),
        ({"prompt_tokens": 12, "completion_tokens": 0}, (12, 0, 0, 0, 0)),
        ({**USAGE, "prompt_tokens_details": None, "completion_tokens_details": None}, (12, 3, 0, 0, 0)),
        ({"prompt_tokens": "12", "completion_tokens": 3.0}, (12, 3, 0, 0, 0)),
        ({**USAGE, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 4}, (12, 3, 8, 0, 0)),
        ({**USAGE, "reasoning_tokens": 2}, (12, 3, 0, 0, 2)),
        ({**USAGE, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 6}, (12, 3, 5, 6, 0)),
        # What only the total knows of: output left out, thinking left out, cached input left out.
        ({"prompt_tokens": 12, "total_tokens": 20}, (12, 8, 0, 0, 0)),
        ({"completion_tokens": 3, "total_tokens": 20}, (17, 3, 0, 0, 0)),
        ({**USAGE, "total_tokens": 65}, (12, 53, 0, 0, 0)),
        ({**USAGE, "total_tokens": 115, "prompt_tokens_details": {"cached_tokens": 100}}, (112, 3, 100, 0, 0)),
        # Parts that exceed their whole.
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": 13}}, (12, 3, 0, 0, 0)),
        ({**USAGE, "completion_tokens_details": {"reasoning_tokens": 9}}, (12, 3, 0, 0, 3)),
        ({"prompt_tokens": 12, "completion_tokens": 3, "completion_tokens_details": {"reasoning_tokens": 9}}, (12, 12, 0, 0, 9)),
        ({**USAGE, "prompt_tokens_details": {"cached_tokens": -4}}, (12, 3, 0, 0, 0)),
        # Unknown is not zero.
        (None, None),
        ([], None),
        ({}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, None),
        ({"prompt_tokens": 12}, None),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": 9}, None),
        ({"prompt_tokens": -1, "completion_tokens": 3}, None),
        ({"prompt_tokens": 12, "completion_tokens": 10**12}, None),
        ({"prompt_tokens": "many", "completion_tokens": 3}, None),
        ({"prompt_tokens": 12, "total_tokens": 3}, None),
        ({"prompt_tokens": True, "completion_tokens": 3}, None),
    ],
)
def test_usage(usage, expected):
    made = answer({"finish_reason": "stop", "message": {"content": "a"}}, usage=usage).usage
    got = made and (made.input_tokens, made.output_tokens, made.cached_input_tokens, made.cache_write_tokens, made.reasoning_tokens)
    assert got == expected


@pytest.mark.parametrize(
    ("usage", "headers", "usd"),
    [
        ({**USAGE, "cost": 0.0012}, {}, 0.0012),
        ({**USAGE, "cost": 0}, {}, 0.0),
        ({**USAGE, "cost": 0.001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.02}}, {}, 0.021),
        ({**USAGE, "cost": 0.001, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.02}}, {}, 0.001),
        (USAGE, {"x-litellm-response-cost": "2.5e-05"}, 2.5e-05),
        (USAGE, {"x-litellm-response-cost": "None"}, None),
        (USAGE, {"x-litellm-response-cost": "0.0"}, None),
        ({**USAGE, "cost": -1}, {"x-litellm-response-cost": "nan"}, None),
        ({**USAGE, "cost": None}, {"x-litellm-response-cost": "0.5"}, 0.5),
    ],
)
def test_the_providers_own_cost(usage, headers, usd):
    assert answer({"finish_reason": "stop", "message": {"content": "a"}}, headers, usage=usage).provider_cost_usd == (usd and pytest.approx(usd))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'\xef\xbb\xbf{"choices":[{"finish_reason":"stop","message":{"content":"a"}}]}', "a"),
        (b'{"choices":[{"finish_reason":"length","message":{"content":"a \\ud83d"}}]}', "a \ufffd"),
        (b'{"choices":[{"finish_reason":"stop","message":{"content":"a"},"logprobs":{"x":NaN}}]}', "a"),
        (b'[{"choices":[{"finish_reason":"stop","message":{"content":"a"}}]}]', "a"),
        ('{"choices":[{"finish_reason":"stop","message":{"content":"\U0001f600é"}}]}'.encode(), "\U0001f600é"),
    ],
)
def test_a_paid_answer_is_not_lost_to_a_strict_parser(body, text):
    assert CODEC.decode(HttpReply(status=200, body=body)).text == text


@pytest.mark.parametrize("number", ["1" + "0" * 40, "-" + "9" * 20, "18446744073709551616", "1" + "0" * 5000, "18446744073709551615", "-7"])
def test_numbers_of_a_salvaged_answer_can_be_written_down(number):
    call = b'{"id":"a","type":"function","function":{"name":"f","arguments":"{}"},"x":%s}' % number.encode()
    body = b'{"choices":[{"finish_reason":"tool_calls","message":{"content":"half \\ud83d","tool_calls":[%s]}}]}' % call
    reply = CODEC.decode(HttpReply(status=200, body=body))
    assert b'"name":"f"' in orjson.dumps(reply.tool_calls)
    assert isinstance(reply.tool_calls[0]["x"], int) == (number in {"18446744073709551615", "-7"})


@pytest.mark.parametrize(
    ("status", "headers", "body", "message"),
    [
        (200, {"content-type": "text/event-stream; charset=utf-8"}, b"data: {}\n\n", "200 with a stream that nobody asked for"),
        (200, {}, b"<html><title>Sign in</title>", "200 with an HTML page: Sign in"),
        (200, {}, b"", "200 with an empty body"),
        (200, {}, b"[]", "200 with no JSON object"),
        (200, {}, b'{"detail":"hm"}', "200 without choices: hm"),
        (200, {}, b"[" * 5000, "200 with no JSON: ["),
    ],
)
def test_what_a_200_holds_instead_of_an_answer(status, headers, body, message):
    fault = CODEC.decode(HttpReply(status=status, headers=headers, body=body))
    assert (fault.kind, fault.billed) == (Kind.PROTOCOL, "maybe")
    assert fault.message.startswith(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "error", "choices", "message", "content", "code", "type", "usage", "finish_reason", "detail", "details", "metadata", "tool_calls",
        "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "cached_tokens", "refusal", "object", "id", "cost", "loc", "msg", "text",
    ]), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([200, 204, 302, 400, 403, 404, 429, 500, 503, 999]), st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
)
def test_decode_never_raises(status, body):
    outcome = CODEC.decode(HttpReply(status=status, headers={"retry-after": "x"}, body=body))
    assert isinstance(outcome, Reply | Fault)
    if isinstance(outcome, Fault):
        assert outcome.message
    dumps([outcome.usage, outcome.text, list(outcome.tool_calls)] if isinstance(outcome, Reply) else outcome.message)
