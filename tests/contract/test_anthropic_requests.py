"""Requests on Anthropic's wire: URL, headers, body. What is encoded is also held against the official SDK's types."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from typing import Any

import pytest
from pydantic import TypeAdapter

from batchllm.core.json import dumps, loads
from batchllm.core.nouns import Request
from batchllm.core.secret import Secret
from batchllm.providers.anthropic import AnthropicMessages, endpoint_url
from batchllm.providers.anthropic_schema import closed_schema

HI = [{"role": "user", "content": "hi"}]
PNG = "data:image/png;base64,aGk="
PDF = "data:application/pdf;base64,JVBERg=="


def codec(model: str = "claude-haiku-4-5", headers: dict[str, Any] | None = None, key: str | None = "sk-secret") -> AnthropicMessages:
    return AnthropicMessages(base_url="https://api.anthropic.com", model=model, api_key=Secret(key) if key else None, headers=headers or {})


def request(messages: Any = HI, params: Any = None, body: Any = None) -> Request:
    return Request(endpoint="chat", messages=messages, params=params or {}, body=body or {})


def sent(messages: Any = HI, params: Any = None, body: Any = None, *, model: str = "claude-haiku-4-5", **more: Any) -> dict[str, Any]:
    made = loads(codec(model).encode(request(messages, params, body), client_request_id="job.1.1", **more).body)
    check(made)
    return made


@cache
def sdk() -> tuple[set[str], TypeAdapter[Any]]:
    """The fields of the SDK's own description of a request, and a judge of their values."""
    from anthropic.types import message_create_params as params

    return set(params.MessageCreateParamsBase.__annotations__), TypeAdapter(params.MessageCreateParamsNonStreaming)


def check(body: dict[str, Any]) -> None:
    """The SDK takes it, and knows each of its fields but those that it no longer has."""
    fields, judge = sdk()
    body = {name: value for name, value in body.items() if name not in ("stream", "top_k", "temperature", "top_p", "foo")}
    assert body.keys() <= fields
    whole = judge.validate_python(body)
    # Lists are judged while they are read.
    turns = [message["content"] if isinstance(message["content"], str) else list(message["content"]) for message in whole["messages"]]
    assert len(turns) == len(body["messages"])
    assert len(list(whole.get("tools", ()))) == len(body.get("tools", ()))


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/messages/", "https://api.anthropic.com/v1/messages"),
        ("http://gateway:4000/anthropic", "http://gateway:4000/anthropic/v1/messages"),
    ],
)
def test_endpoint_url(base, url):
    assert endpoint_url(base) == url


def test_headers():
    call = codec(key="sk-secret\n").encode(request(), client_request_id="job.1.1")
    assert call.headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "anthropic-version": "2023-06-01",
        "x-api-key": Secret("sk-secret"),
    }
    assert "sk-secret" not in repr(call)
    # Two kinds of credential at once are refused.
    own = codec(headers={"authorization": Secret("Bearer x"), "Anthropic-Version": "2026-10-21"}).encode(request(), client_request_id=None).headers
    assert own == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "authorization": Secret("Bearer x"),
        "Anthropic-Version": "2026-10-21",
    }
    assert "x-api-key" not in codec(key=None).encode(request(), client_request_id=None).headers


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def call(identity: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}


@pytest.mark.parametrize(
    ("messages", "system", "turns"),
    [
        (HI, None, HI),
        ([{"role": "system", "content": "s"}, *HI], "s", HI),
        ([{"role": "developer", "content": "d"}, *HI, {"role": "system", "content": "s"}], [text("d"), text("s")], HI),
        ([{"role": "system", "content": " "}, *HI], None, HI),
        (
            [{"role": "system", "content": [{**text("rules"), "cache_control": {"type": "ephemeral"}}]}, *HI],
            [{**text("rules"), "cache_control": {"type": "ephemeral"}}],
            HI,
        ),
        ([*HI, *HI], None, [{"role": "user", "content": [text("hi"), text("hi")]}]),
        ([{"role": "user", "content": ""}, *HI], None, [{"role": "user", "content": [text("hi")]}]),
        (
            [*HI, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}],
            None,
            [*HI, {"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}],
        ),
        ([*HI, {"role": "assistant", "content": None, "refusal": "no"}], None, [*HI, {"role": "assistant", "content": [text("no")]}]),
        (
            [
                *HI,
                {"role": "assistant", "content": "wait", "tool_calls": [call("t1", "f", '{"q":1}'), call("t2", "g", "")]},
                {"role": "tool", "tool_call_id": "t1", "content": "one"},
                {"role": "tool", "tool_call_id": "t2", "content": [{"type": "text", "text": "two"}], "is_error": True},
                {"role": "user", "content": "go on"},
            ],
            None,
            [
                *HI,
                {
                    "role": "assistant",
                    "content": [
                        text("wait"),
                        {"type": "tool_use", "id": "t1", "name": "f", "input": {"q": 1}},
                        {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                        {"type": "tool_result", "tool_use_id": "t2", "content": [text("two")], "is_error": True},
                        text("go on"),
                    ],
                },
            ],
        ),
        # What answers a call stands first in its turn, whatever was said in between.
        (
            [*HI, {"role": "assistant", "tool_calls": [call("t1", "f", "{}")]}, *HI, {"role": "tool", "tool_call_id": "t1", "content": "one"}],
            None,
            [
                *HI,
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "one"}, text("hi")]},
            ],
        ),
        (
            [*HI, {"role": "assistant", "content": "", "tool_calls": [call("t1", "f", "{}", extra_content={"anthropic": {"thinking": [THOUGHT]}})]}],
            None,
            [*HI, {"role": "assistant", "content": [THOUGHT, {"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}],
        ),
    ],
)
def test_messages(messages, system, turns):
    made = sent(messages)
    assert (made.get("system"), made["messages"]) == (system, turns)


def image(url: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url}


@pytest.mark.parametrize(
    ("part", "block"),
    [
        (image({"url": PNG, "detail": "low"}), {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}),
        (image("https://h/a.jpg"), {"type": "image", "source": {"type": "url", "url": "https://h/a.jpg"}}),
        (image("https://h/a.pdf"), {"type": "document", "source": {"type": "url", "url": "https://h/a.pdf"}}),
        (
            {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}, "title": "a.pdf"},
        ),
        (
            {"type": "file", "file": {"file_data": "JVBERg==", "filename": "a.pdf"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="}, "title": "a.pdf"},
        ),
        (
            {"type": "file", "file": {"file_data": f"data:text/plain;charset=utf-8;base64,{b64encode('é'.encode()).decode()}"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "é"}},
        ),
        (
            {"type": "file", "file": {"file_data": "data:,a%20b"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a b"}},
        ),
        ({"type": "image", "source": {"type": "url", "url": "https://h/a"}}, {"type": "image", "source": {"type": "url", "url": "https://h/a"}}),
        ("a", text("a")),
    ],
)
def test_content_parts(part, block):
    assert sent([{"role": "user", "content": [part]}])["messages"] == [{"role": "user", "content": [block]}]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "system", "content": "s"}], "needs a user message"),
        ([{"role": "function", "name": "f", "content": "x"}], "no message role 'function'"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x", "format": "wav"}}]}], "not audio/wav"),
        ([{"role": "user", "content": [image("http://h/a.jpg")]}], "https URLs only"),
        ([{"role": "user", "content": [image("scans/a.jpg")]}], "must be https or a data: URL"),
        ([{"role": "user", "content": [image({"detail": "low"})]}], "has no url"),
        ([{"role": "user", "content": [image("data:image/tiff;base64,aGk=")]}], "not image/tiff"),
        ([{"role": "user", "content": [{"type": "file", "file": {}}]}], "needs `file_data`"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "'hologram' in a user message"),
        ([{"role": "user", "content": 5}], "must be text or a list of parts"),
        ([*HI, {"role": "assistant", "tool_calls": [call("t", "f", "[1]")]}], "of a call of 'f' are no JSON object"),
        ([*HI, {"role": "assistant", "tool_calls": [{"id": "t", "type": "custom", "custom": {}}]}], "of type function only"),
    ],
)
def test_what_the_wire_cannot_take_fails_the_row(messages, words):
    with pytest.raises(ValueError, match=words):
        codec().encode(request(messages), client_request_id=None)


SCHEMA = {"type": "object", "properties": {"label": {"type": "string", "maxLength": 9}}, "required": ["label"]}
CLOSED = {
    "type": "object",
    "properties": {"label": {"type": "string", "description": "(maxLength: 9)"}},
    "required": ["label"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
MADE_TOOL = {"name": "f", "description": "d", "input_schema": SCHEMA}


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": 9}, {"max_tokens": 5}),
        ({"temperature": 0, "top_k": 3}, {"temperature": 0, "top_k": 3}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"stop": "\n"}, {}),
        ({"n": 1, "stream": True, "model": "x", "messages": [], "stream_options": {}}, {}),
        ({"user": "u"}, {"metadata": {"user_id": "u"}}),
        ({"metadata": {"user_id": "m"}, "user": "u"}, {"metadata": {"user_id": "m"}}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "flex"}, {}),
        ({"tools": [TOOL]}, {"tools": [MADE_TOOL]}),
        (
            {"tools": [{"type": "function", "function": {"name": "f"}}]},
            {"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]},
        ),
        (
            {"tools": [{"type": "function", "function": {**TOOL["function"], "strict": True}}]},
            {"tools": [{"name": "f", "description": "d", "input_schema": CLOSED, "strict": True}]},
        ),
        ({"tools": [TOOL], "tool_choice": "required"}, {"tools": [MADE_TOOL], "tool_choice": {"type": "any"}}),
        ({"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": False}, {"tools": [MADE_TOOL], "tool_choice": {"type": "none"}}),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tools": [MADE_TOOL], "tool_choice": {"type": "tool", "name": "f"}},
        ),
        ({"tools": [TOOL], "parallel_tool_calls": False}, {"tools": [MADE_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ({"response_format": FORM}, {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {}),
        ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}}),
    ],
)
def test_parameters(params, fields):
    assert sent(params=params) == {"model": "claude-haiku-4-5", "max_tokens": 64_000, "messages": HI, **fields}


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"tools": [TOOL], "tool_choice": "maybe"}, "no tool_choice 'maybe'"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools of type function"),
        ({"functions": [{}]}, "use `tools`"),
        ({"response_format": {"type": "json_schema"}}, "no json_schema.schema"),
        ({"response_format": {"type": "xml"}}, "unknown response_format 'xml'"),
    ],
)
def test_parameters_that_make_no_sense(params, words):
    with pytest.raises(ValueError, match=words):
        codec().encode(request(params=params), client_request_id=None)


@pytest.mark.parametrize(
    ("model", "effort", "fields"),
    [
        ("claude-opus-5-5", "low", {"output_config": {"effort": "low"}}),
        ("claude-opus-5-5", "none", {"output_config": {"effort": "low"}}),
        ("claude-opus-4-8", "none", {"thinking": {"type": "disabled"}}),
        ("claude-opus-4-8", "xhigh", {"output_config": {"effort": "xhigh"}}),
        ("claude-sonnet-4-6", "xhigh", {"output_config": {"effort": "high"}}),
        ("claude-opus-4-5", "minimal", {"output_config": {"effort": "low"}}),
        ("claude-haiku-4-5", "low", {}),
        ("claude-haiku-4-5", "none", {}),
        ("some-other-model", "medium", {"output_config": {"effort": "medium"}}),
    ],
)
def test_effort(model, effort, fields):
    made = sent(params={"reasoning_effort": effort}, model=model)
    assert {name: made[name] for name in ("output_config", "thinking") if name in made} == fields


def test_raw_body_comes_last_and_merges_into_objects():
    made = sent(
        params={"response_format": FORM, "temperature": 0, "foo": 1},
        body={"output_config": {"effort": "high"}, "temperature": 0.5, "inference_geo": "us"},
        model="claude-opus-4-5",
    )
    assert made["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}, "effort": "high"}
    assert (made["temperature"], made["inference_geo"], made["foo"]) == (0.5, "us", 1)
    # The parameters that rows share are made once; a raw part must not leak into them.
    made = codec("claude-opus-4-5")
    params = {"response_format": FORM}
    made.encode(request(params=params, body={"output_config": {"effort": "high"}}), client_request_id=None)
    assert "effort" not in loads(made.encode(request(params=params), client_request_id=None).body)["output_config"]


def test_stream_is_a_field():
    assert sent(stream=True)["stream"] is True
    assert "stream" not in sent()


def test_each_thing_left_out_is_told_once():
    made = codec("claude-opus-5-5")
    params = {"temperature": 0, "seed": 7, "stop": ["\n"], "metadata": {"row": "1"}, "response_format": {"type": "json_object"}}
    for _ in range(2):
        made.encode(request([{"role": "user", "content": "hi", "name": "ann"}], dict(params)), client_request_id=None)
    assert made.warnings == [
        "Anthropic's messages have no `name`: it is left out",
        "claude-opus-5-5 takes no `seed`: it is left out",
        "claude-opus-5-5 takes no `temperature`: it is left out",
        "Anthropic takes no stop sequence of blanks only: it is left out",
        "claude-opus-5-5 has no JSON mode without a schema: response_format is left out, so the prompt must ask for JSON",
        "Anthropic's metadata holds a `user_id` only: the rest is left out",
    ]
    # Named in the request, refused by the version that the headers ask for.
    older = codec(headers={"anthropic-version": "2026-10-21"})
    assert "temperature" not in loads(older.encode(request(params={"temperature": 0}), client_request_id=None).body)
    assert older.warnings == ["claude-haiku-4-5 takes no `temperature`: it is left out"]


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (
            {"type": "integer", "minimum": 1, "maximum": 5, "description": "Stars"},
            {"type": "integer", "description": "Stars (minimum: 1, maximum: 5)"},
        ),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        ({"type": "string", "format": "phone"}, {"type": "string", "description": "(format: phone)"}),
        (
            {"type": "array", "items": SCHEMA, "minItems": 1, "maxItems": 3},
            {"type": "array", "items": CLOSED, "minItems": 1, "description": "(maxItems: 3)"},
        ),
        ({"oneOf": [SCHEMA, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        (
            {"$schema": "x", "$ref": "#/$defs/a", "$defs": {"a": {"type": ["object", "null"], "properties": {}}}},
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": ["object", "null"], "properties": {}, "additionalProperties": False}}},
        ),
        # A property may be called like a keyword.
        (
            {"type": "object", "properties": {"minimum": {"type": "integer"}, "enum": {"const": 1}}},
            {"type": "object", "properties": {"minimum": {"type": "integer"}, "enum": {"const": 1}}, "additionalProperties": False},
        ),
        ({"enum": [{"minimum": 1}, "a"]}, {"enum": [{"minimum": 1}, "a"]}),
    ],
)
def test_schema_as_the_grammar_takes_it(schema, made):
    said: list[str] = []
    assert closed_schema(schema, said.append) == made
    assert said == []


def test_an_open_object_is_closed_with_a_warning():
    said: list[str] = []
    assert closed_schema({"type": "object", "additionalProperties": {"type": "string"}}, said.append)["additionalProperties"] is False
    assert len(said) == 1


def test_what_json_cannot_carry():
    with pytest.raises(TypeError):
        codec().encode(request([{"role": "user", "content": "\ud800"}]), client_request_id=None)
    assert dumps(codec().warnings) == b"[]"
