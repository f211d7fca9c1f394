"""OpenAI's responses, completions and embeddings: what goes on the wire (the SDK's own types as judge) and what comes back; and the hosts that bend it."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.core.nouns import Fault, Kind, LimitHint, Reply, Request, Usage
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpReply
from batchllm.providers.codecs import Unserved, codec_for
from batchllm.providers.shares import shares
from batchllm.spec.hosts import BY_NAME, PLAIN, host_at

USER = {"role": "user", "content": "hi"}


def codec(endpoint: str = "responses", provider: str = "openai", base_url: str = "https://api.openai.com/v1", **more: Any) -> Any:
    made = {"provider": provider, "endpoint": endpoint, "base_url": base_url, "model": "gpt-4o", "api_key": Secret("sk-1"), "headers": {}, **more}
    return codec_for(**made)


def sent(made: Any, messages: Any = (USER,), params: Any = None, body: Any = None, *, stream: bool = False) -> dict[str, Any]:
    request = Request(endpoint="chat", messages=messages, params=params or {}, body=body or {})
    return json.loads(made.encode(request, client_request_id=None, stream=stream).body)


def reply(data: Any, status: int = 200, **headers: str) -> HttpReply:
    return HttpReply(status=status, body=data if isinstance(data, bytes) else json.dumps(data).encode(), headers=headers)


# --- responses: requests ---

CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"q": 1}'}}


@pytest.mark.parametrize(
    ("messages", "instructions", "items"),
    [
        ([USER], None, [USER]),
        ([{"role": "system", "content": "Be brief"}, USER], "Be brief", [USER]),
        ([{"role": "system", "content": "alone"}], None, [{"role": "system", "content": "alone"}]),
        (
            [USER, {"role": "developer", "content": "now"}, {"role": "assistant", "content": "yes"}, USER],
            None,
            [USER, {"role": "developer", "content": "now"}, {"role": "assistant", "content": "yes"}, USER],
        ),
        (
            [{"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "42"}],
            None,
            [
                {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"q": 1}'},
                {"type": "function_call_output", "call_id": "call_1", "output": "42"},
            ],
        ),
        (
            [{"role": "user", "content": [
                {"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "https://x/a.png", "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
            ]}],
            None,
            [{"role": "user", "content": [
                {"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://x/a.png", "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
            ]}],
        ),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], None, [{"role": "assistant", "content": "ab"}]),
        ([{"role": "assistant", "content": None, "refusal": "no"}], None, [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}]),
    ],
)  # fmt: skip
def test_messages_become_items(messages, instructions, items):
    made = sent(codec(), messages)
    assert (made.get("instructions"), made["input"]) == (instructions, items)


SCHEMA = {"name": "city", "strict": True, "schema": {"type": "object"}}


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({}, {}),
        ({"max_tokens": 9}, {"max_output_tokens": 9}),
        ({"max_tokens": 9, "max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 7, "max_output_tokens": 5}, {"max_output_tokens": 5}),
        ({"temperature": 0, "top_p": 0.5, "metadata": {"a": "b"}}, {"temperature": 0, "top_p": 0.5, "metadata": {"a": "b"}}),
        ({"response_format": {"type": "json_schema", "json_schema": SCHEMA}}, {"text": {"format": {"type": "json_schema", **SCHEMA}}}),
        ({"response_format": {"type": "json_object"}, "verbosity": "low"}, {"text": {"format": {"type": "json_object"}, "verbosity": "low"}}),
        ({"reasoning_effort": "low", "reasoning": {"summary": "auto"}}, {"reasoning": {"effort": "low", "summary": "auto"}}),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}, {"type": "web_search"}]},
            {"tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}]},
        ),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"tool_choice": {"type": "function", "name": "f"}}),
        ({"logprobs": True, "top_logprobs": 2}, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
        ({"store": True}, {"store": True}),
        ({"seed": 7, "stop": ["x"], "presence_penalty": 0, "stream": True, "n": 1}, {}),
    ],
)
def test_parameters_get_this_endpoints_names(params, fields):
    assert sent(codec(), params=params) == {"model": "gpt-4o", "input": [USER], "store": False, **fields}


def test_a_request_is_one_of_the_sdks():
    """What this file expects is checked against the SDK's types for the request, which know each item, tool and format."""
    from openai.types.responses.response_create_params import ResponseCreateParamsNonStreaming
    from pydantic import ConfigDict, TypeAdapter, with_config

    judge = TypeAdapter(with_config(ConfigDict(extra="forbid"))(ResponseCreateParamsNonStreaming))
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    messages = [
        {"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "t"}, image]},
        {"role": "assistant", "content": "a", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]  # fmt: skip
    params = {
        "max_tokens": 5, "reasoning_effort": "low", "verbosity": "low", "logprobs": True, "response_format": {"type": "json_schema", "json_schema": SCHEMA},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    }  # fmt: skip
    judge.validate_python(sent(codec(), messages, params))


def test_what_responses_have_not_is_told_once():
    made = codec()
    for _ in range(2):
        sent(made, params={"seed": 7, "stop": "x", "frequency_penalty": 0})
    assert made.warnings == ["the responses endpoint has no `stop`: it is left out", "the responses endpoint has no `seed`: it is left out"]


@pytest.mark.parametrize(
    ("endpoint", "messages", "params", "words"),
    [
        ("responses", [USER], {"background": True}, "background"),
        ("responses", [{"role": "function", "content": "x"}], {}, "role 'function'"),
        ("responses", [{"role": "user", "content": [{"type": "video_url"}]}], {}, "type video_url"),
        ("completions", [USER, {"role": "assistant", "content": "x"}], {}, "one prompt"),
        ("completions", [USER, USER], {}, "one user message, not 2"),
        ("completions", [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], {}, "text only"),
        ("completions", [USER], {"best_of": 3}, "best_of"),
        ("embeddings", [{"role": "user", "content": ""}], {}, "empty"),
    ],
)
def test_what_a_wire_cannot_say_is_refused_with_words(endpoint, messages, params, words):
    made = codec(endpoint)
    for _ in range(2):
        with pytest.raises(ValueError, match=words):
            sent(made, messages, params)


# --- responses: replies ---


def response(status: str = "completed", output: Any = None, **more: Any) -> dict[str, Any]:
    if output is None:
        output = [{"type": "reasoning", "summary": []}, message({"type": "output_text", "text": "Li"}, {"type": "output_text", "text": "ma"})]
    return {"id": "resp_1", "object": "response", "status": status, "error": None, "model": "m-1", "output": output, **more}


def message(*parts: Any) -> dict[str, Any]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


DETAILED = {
    "input_tokens": 1210, "input_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 6},
    "output_tokens": 64, "output_tokens_details": {"reasoning_tokens": 48}, "total_tokens": 1274,
}  # fmt: skip
USED = Usage(input_tokens=1210, output_tokens=64, cached_input_tokens=1024, cache_write_tokens=6, reasoning_tokens=48)


def test_a_response():
    said = codec().decode(reply(response(usage=DETAILED, service_tier="flex"), **{"x-request-id": "req_1"}))
    assert said == Reply(
        text="Lima", finish="stop", finish_raw="completed", usage=USED, provider_model="m-1", service_tier="flex", request_id="req_1"
    )


@pytest.mark.parametrize(
    ("data", "finish", "text", "refusal"),
    [
        (response("incomplete", incomplete_details={"reason": "max_output_tokens"}), "length", "Lima", None),
        (response("incomplete", [], incomplete_details={"reason": "max_output_tokens"}), "length", "", None),
        (response("incomplete", [], incomplete_details={"reason": "content_filter"}), "filter", None, None),
        (response("incomplete", [], incomplete_details={"reason": "steered"}), "unknown", None, None),
        (response(output=[message({"type": "refusal", "refusal": "I won't"})]), "refusal", None, "I won't"),
        (response(output=[]), "stop", "", None),
        ({"output": [message({"type": "output_text", "text": "x"})]}, "stop", "x", None),
    ],
)
def test_finishes_of_responses(data, finish, text, refusal):
    said = codec().decode(reply(data))
    assert (said.finish, said.text, said.refusal) == (finish, text, refusal)


def test_calls_of_responses_are_in_chats_form():
    calls = [
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": '{"q": 1}'},
        {"type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "x"},
    ]
    said = codec().decode(reply(response(output=calls)))
    assert (said.finish, said.text) == ("tool", None)
    assert said.tool_calls == (CALL, {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "x"}})


@pytest.mark.parametrize(
    ("data", "kind", "billed"),
    [
        (response("failed", [], error={"code": "server_error", "message": "x"}), Kind.SERVER, "maybe"),
        (response("failed", [], error={"code": "rate_limit_exceeded", "message": "x"}, usage=DETAILED), Kind.RATE, "yes"),
        (response("failed", [], error={"code": "invalid_prompt", "message": "x"}), Kind.FILTER, "maybe"),
        (response("failed", [], error={"code": "invalid_image_format", "message": "x"}), Kind.BAD_REQUEST, "maybe"),
        (response("failed", [], error={"code": "data_residency_mismatch", "message": "x"}), Kind.BAD_REQUEST, "maybe"),
        (response("failed", []), Kind.PROTOCOL, "maybe"),
        (response("cancelled", []), Kind.CUT, "maybe"),
        (response("queued", []), Kind.PROTOCOL, "maybe"),
        ({"id": "x"}, Kind.PROTOCOL, "maybe"),
        (b"<html>", Kind.PROTOCOL, "maybe"),
    ],
)
def test_responses_that_are_none(data, kind, billed):
    fault = codec().decode(reply(data))
    assert (fault.kind, fault.billed) == (kind, billed)


# --- completions and embeddings ---


def test_completions():
    made = codec("completions")
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": [{"type": "text", "text": "Once"}]}]
    assert made.url == "https://api.openai.com/v1/completions"
    assert sent(made, messages, {"max_completion_tokens": 5, "echo": False}, {"suffix": "."}) == {
        "model": "gpt-4o", "prompt": "Be brief\n\nOnce", "max_tokens": 5, "echo": False, "suffix": ".",
    }  # fmt: skip
    assert sent(made, stream=True)["stream_options"] == {"include_usage": True, "include_obfuscation": False}
    said = made.decode(
        reply({"model": "m-1", "choices": [{"text": " upon", "finish_reason": "length"}], "usage": {"prompt_tokens": 2, "completion_tokens": 1}})
    )
    assert (said.text, said.finish, said.usage) == (" upon", "length", Usage(input_tokens=2, output_tokens=1))
    assert made.decode(reply({"choices": [{"text": "", "finish_reason": "stop"}]})).text == ""


def packed(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def embeddings(*data: Any, **more: Any) -> dict[str, Any]:
    return {"object": "list", "data": list(data), "model": "m-1", "usage": {"prompt_tokens": 10, "total_tokens": 10}, **more}


def test_embeddings_of_one_and_of_many():
    made = codec("embeddings")
    one = Request(endpoint="embeddings", messages=(USER,), params={"dimensions": 2}, body={"user": "u"})
    # base64 is a quarter of the bytes; only OpenAI and the simulator are known to take it.
    body = {"model": "gpt-4o", "input": "hi", "dimensions": 2, "encoding_format": "base64", "user": "u"}
    assert json.loads(made.encode(one, client_request_id="c").body) == body
    two = replace(one, messages=({"role": "user", "content": "ho"},))
    assert json.loads(made.encode_many([one, two], client_request_id="c").body)["input"] == ["hi", "ho"]
    with pytest.raises(ValueError, match="one set of parameters"):
        made.encode_many([one, replace(two, params={"dimensions": 3})], client_request_id=None)


def test_vectors_are_told_apart_by_their_index():
    items = [{"index": 2, "embedding": [3.5, 1]}, {"index": 0, "embedding": packed(0.5, -2)}, {"index": 9, "embedding": [1.0]}]
    made = codec("embeddings").decode_many(
        reply(embeddings(*items, usage={"prompt_tokens": 10, "total_tokens": 10, "cost": 0.5})), 3, sizes=(3, 1, 1)
    )
    assert [getattr(one, "vector", None) for one in made] == [[0.5, -2.0], None, [3.5, 1]]
    assert (made[1].kind, made[1].billed) == (Kind.PROTOCOL, "yes")
    assert [one.usage.input_tokens for one in made] == [6, 2, 2]
    assert (made[0].provider_cost_usd, made[0].provider_model, made[0].finish, made[0].text) == (0.3, "m-1", "stop", None)


@pytest.mark.parametrize(
    ("indexes", "whose"),
    [
        ([0, 0, 0], [10.0, 11.0, 12.0]),
        ([None, None, None], [10.0, 11.0, 12.0]),
        ([None, None], [None, None, None]),
        ([0, 0], [None, None, None]),
        ([2, 1, 1], [None, None, 10.0]),
        ([1, 0, [2]], [11.0, 10.0, None]),
    ],
)
def test_a_vector_that_may_be_another_inputs_is_nobodys(indexes, whose):
    items = [{"index": index, "embedding": [10.0 + place]} for place, index in enumerate(indexes)]
    made = codec("embeddings").decode_many(reply(embeddings(*items)), 3)
    assert [getattr(one, "vector", [None])[0] for one in made] == whose


@pytest.mark.parametrize(
    ("data", "status", "kind"),
    [
        (embeddings(), 200, Kind.PROTOCOL),
        ({"error": {"code": 429, "message": "x"}}, 200, Kind.RATE),
        ({"error": {"message": "no", "code": "invalid_api_key"}}, 401, Kind.AUTH),
        (b"nope", 200, Kind.PROTOCOL),
        (embeddings({"index": 0, "embedding": "AAA"}), 200, Kind.PROTOCOL),
        (embeddings({"index": 0, "embedding": [1.0, None]}), 200, Kind.PROTOCOL),
    ],
)
def test_embeddings_that_are_none(data, status, kind):
    assert codec("embeddings").decode(reply(data, status)).kind is kind


def test_usage_of_embeddings_that_is_not_said_is_not_zero():
    item = {"index": 0, "embedding": [1.0]}
    assert codec("embeddings").decode(reply(embeddings(item, usage={"prompt_tokens": 0, "total_tokens": 0}))).usage is None
    assert codec("embeddings").decode(reply(embeddings(item, usage={"prompt_tokens": 7}))).usage == Usage(input_tokens=7, output_tokens=0)


@given(st.integers(0, 10**7), st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_shares_add_up(total, sizes):
    parts = shares(total, sizes)
    assert sum(parts) == total
    assert all(part >= 0 for part in parts)
    if sum(sizes):
        assert all(abs(part - total * size / sum(sizes)) <= 1 for part, size in zip(parts, sizes, strict=True))


# --- hosts ---


@pytest.mark.parametrize(
    ("base", "endpoint", "host", "url"),
    [
        ("https://api.groq.com/openai/v1", "chat", "groq", "https://api.groq.com/openai/v1/chat/completions"),
        ("http://localhost:11434/v1", "embeddings", "ollama", "http://localhost:11434/v1/embeddings"),
        ("http://localhost:8000/v1", "chat", None, "http://localhost:8000/v1/chat/completions"),
        ("https://api.groq.com.evil.example/v1", "chat", None, "https://api.groq.com.evil.example/v1/chat/completions"),
        ("https://r.openai.azure.com/openai/v1", "responses", "azure", "https://r.openai.azure.com/openai/v1/responses"),
        (
            "https://r.openai.azure.com",
            "chat",
            "azure-classic",
            "https://r.openai.azure.com/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        ),
        (
            "https://r.openai.azure.com/openai/deployments/mine/",
            "embeddings",
            "azure-classic",
            "https://r.openai.azure.com/openai/deployments/mine/embeddings?api-version=2024-10-21",
        ),
    ],
)
def test_hosts_are_told_by_their_address(base, endpoint, host, url):
    found = host_at(base)
    assert (found and found.name) == host
    assert codec(endpoint, "openai-compatible", base).url == url


@pytest.mark.parametrize(
    ("host", "params", "fields", "warnings"),
    [
        (PLAIN, {"max_completion_tokens": 5, "seed": 1}, {"max_tokens": 5, "seed": 1}, 0),
        (BY_NAME["groq"], {"max_tokens": 5, "logit_bias": {"1": 2}}, {"max_completion_tokens": 5}, 1),
        (BY_NAME["mistral"], {"max_completion_tokens": 5, "seed": 1}, {"max_tokens": 5, "random_seed": 1}, 0),
        (BY_NAME["deepseek"], {"response_format": {"type": "json_schema", "json_schema": SCHEMA}}, {"response_format": {"type": "json_object"}}, 1),
        (BY_NAME["azure-classic"], {"max_tokens": 5}, {"max_tokens": 5}, 0),
        (replace(PLAIN, output_cap=None), {"max_tokens": 5}, {"max_tokens": 5}, 0),
    ],
)
def test_what_a_host_calls_otherwise_or_cannot_take(host, params, fields, warnings):
    made = codec("chat", "openai-compatible", "http://h/v1", host=host)
    assert sent(made, params=params) == {"model": "gpt-4o", "messages": [USER], **fields}
    assert len(made.warnings) == warnings


def test_a_reasoning_model_of_openai_gets_what_it_takes():
    made = codec("chat", model="gpt-5-mini")
    assert sent(made, params={"max_tokens": 5, "temperature": 0}) == {"model": "gpt-5-mini", "messages": [USER], "max_completion_tokens": 5}
    assert len(made.warnings) == 1


@pytest.mark.parametrize(
    ("provider", "host", "options"),
    [
        ("openai", None, {"include_usage": True, "include_obfuscation": False}),
        ("openai-compatible", PLAIN, {"include_usage": True}),
        ("openai-compatible", BY_NAME["mistral"], None),
    ],
)
def test_a_stream_is_asked_for_with_its_usage(provider, host, options):
    made = sent(codec("chat", provider, host=host), stream=True)
    assert (made["stream"], made.get("stream_options")) == (True, options)


def test_azure_has_a_header_of_its_own_for_the_key():
    headers = (
        codec("chat", "openai-compatible", "https://r.openai.azure.com/openai/v1")
        .encode(Request(endpoint="chat", messages=(USER,), params={}), client_request_id="x")
        .headers
    )
    assert (headers["api-key"], "Authorization" in headers) == (Secret("sk-1"), False)


def test_groq_counts_requests_by_the_day():
    headers = {"x-ratelimit-limit-requests": "14400", "x-ratelimit-limit-tokens": "6000"}
    assert codec("chat", "openai-compatible", "https://api.groq.com/openai/v1").hints(headers) == (
        LimitHint(dimension="requests", limit=14400, window="day"),
        LimitHint(dimension="tokens", limit=6000, window="minute"),
    )
    assert codec("chat").hints(headers)[0].window is None


@pytest.mark.parametrize(
    ("provider", "endpoint", "base", "words"),
    [
        ("anthropic", "embeddings", "", "no embedding models"),
        ("anthropic", "responses", "", "`endpoint: chat`"),
        ("gemini", "completions", "", "`chat` and `embeddings`"),
        ("ollama", "responses", "", "openai-compatible"),
        ("openai-compatible", "responses", "https://r.openai.azure.com", "/openai/v1"),
    ],
)
def test_what_no_wire_has_is_refused_with_the_mend(provider, endpoint, base, words):
    with pytest.raises(Unserved, match=words):
        codec(endpoint, provider, base or "https://h/v1")


@pytest.mark.parametrize("endpoint", ["chat", "completions", "embeddings", "responses"])
@pytest.mark.parametrize("provider", ["openai", "openai-compatible", "simulated", "anthropic", "gemini", "ollama"])
def test_every_codec_that_there_is_keeps_its_promises(provider, endpoint):
    try:
        made = codec(endpoint, provider, "http://h")
    except Unserved:
        return
    assert made.warnings == []
    assert "sk-1" not in repr(made)
    call = made.encode(Request(endpoint=endpoint, messages=(USER,), params={}), client_request_id="x")
    assert "sk-1" not in repr(call)
    for garbage in (b"", b"[]", b"null", b"\xff", b"<html>", b'{"error": []}', b'{"choices": [{}], "data": [{}], "output": [{}], "message": {}}'):
        for status in (200, 503):
            assert isinstance(made.decode(reply(garbage, status)), Fault | Reply)
