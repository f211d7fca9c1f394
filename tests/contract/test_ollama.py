"""Ollama's native wire: what goes on it (the official package's models as judge) and what comes back."""

from __future__ import annotations

import json
from typing import Any

import ollama
import pytest

from batchllm.core.nouns import Kind, Request, Usage
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpReply
from batchllm.engine.facts import price_finder
from batchllm.providers.codecs import codec_for
from batchllm.spec import ModelSpec

USER = {"role": "user", "content": "hi"}
JUDGES = {"chat": "ChatRequest", "completions": "GenerateRequest", "embeddings": "EmbedRequest"}
WITHIN = {"stream": False, "truncate": False, "shift": False}


def codec(endpoint: str = "chat", base_url: str = "http://127.0.0.1:11434", **more: Any) -> Any:
    return codec_for(**{"provider": "ollama", "endpoint": endpoint, "base_url": base_url, "model": "gemma4", "api_key": None, "headers": {}, **more})


def sent(
    endpoint: str = "chat", messages: Any = (USER,), params: Any = None, body: Any = None, made: Any = None, *, stream: bool = False
) -> dict[str, Any]:
    made = made or codec(endpoint)
    data = json.loads(
        made.encode(Request(endpoint="chat", messages=messages, params=params or {}, body=body or {}), client_request_id=None, stream=stream).body
    )
    # The package's own form of an image is an object that reads it.
    getattr(ollama._types, JUDGES[endpoint]).model_validate({key: value for key, value in data.items() if key != "images"})
    return data


@pytest.mark.parametrize("base", ["http://h:1", "http://h:1/", "http://h:1/api", "http://h:1/v1/", "http://h:1/api/chat"])
def test_urls(base):
    assert [codec(endpoint, base).url for endpoint in JUDGES] == ["http://h:1/api/chat", "http://h:1/api/generate", "http://h:1/api/embed"]


@pytest.mark.parametrize(
    ("params", "body", "fields"),
    [
        ({}, {}, {}),
        (
            {"max_tokens": 5, "temperature": 0, "top_p": 0.5, "seed": 7, "stop": "x", "top_k": 3, "presence_penalty": 1},
            {},
            {"options": {"num_predict": 5, "temperature": 0, "top_p": 0.5, "seed": 7, "stop": ["x"], "top_k": 3, "presence_penalty": 1}},
        ),
        ({"max_tokens": 5, "max_completion_tokens": 3}, {}, {"options": {"num_predict": 3}}),
        # The raw options go into the others.
        (
            {"temperature": 0},
            {"options": {"num_ctx": 8192}, "keep_alive": "10m"},
            {"options": {"temperature": 0, "num_ctx": 8192}, "keep_alive": "10m"},
        ),
        ({}, {"truncate": True}, {"truncate": True}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
            {},
            {"format": {"type": "object"}},
        ),
        ({"response_format": {"type": "json_object"}}, {}, {"format": "json"}),
        ({"response_format": {"type": "text"}}, {}, {}),
        ({"reasoning_effort": "none"}, {}, {"think": False}),
        ({"reasoning_effort": "minimal"}, {}, {"think": "low"}),
        ({"reasoning_effort": "high"}, {}, {"think": "high"}),
        ({"user": "u", "metadata": {}, "n": 1, "parallel_tool_calls": True, "tool_choice": "auto"}, {}, {}),
    ],
)
def test_parameters(params, body, fields):
    made = codec()
    assert sent(params=params, body=body, made=made) == {"model": "gemma4", "messages": [USER], **WITHIN, **fields}
    # What is made once isn't changed by what is merged into it.
    assert sent(params=params, body=body, made=made) == {"model": "gemma4", "messages": [USER], **WITHIN, **fields}
    assert made.warnings == []


def test_what_ollama_has_not_is_told():
    made = codec()
    assert "logit_bias" not in sent(params={"logit_bias": {"1": 1}, "service_tier": "flex"}, made=made)
    assert [warning.split("`")[1] for warning in made.warnings] == ["logit_bias", "service_tier"]


TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"q": 1}'}}


def test_tools():
    assert sent(params={"tools": [TOOL]})["tools"] == [TOOL]
    assert "tools" not in sent(params={"tools": [TOOL], "tool_choice": "none"})
    made = sent(
        messages=[USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "42"}]
    )
    assert made["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "call_1", "function": {"name": "f", "arguments": {"q": 1}}}]},
        {"role": "tool", "content": "42", "tool_name": "f"},
    ]


PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def test_images_go_beside_the_text():
    parts = [{"type": "text", "text": "see"}, PNG, {"type": "text", "text": "this"}]
    assert sent(messages=[{"role": "developer", "content": "s"}, {"role": "user", "content": parts}])["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "see\nthis", "images": ["AAAA"]},
    ]
    assert sent("completions", [{"role": "system", "content": "s"}, {"role": "user", "content": parts}], {"suffix": "."}) == {
        "model": "gemma4", **WITHIN, "prompt": "see\nthis", "system": "s", "images": ["AAAA"], "suffix": ".",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "message", "words"),
    [
        ("chat", {"content": [{"type": "image_url", "image_url": {"url": "https://x/a.png"}}]}, "by URL"),
        ("chat", {"content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}, "input_audio"),
        ("chat", {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{nope"}}]}, "no JSON object"),
        ("chat", {"role": "assistant", "tool_calls": [{"type": "custom", "custom": {}}]}, "of type custom"),
        ("completions", {"role": "assistant", "content": "x"}, "one prompt"),
        ("embeddings", {"content": ""}, "empty"),
    ],
)
def test_what_the_wire_cannot_take_is_refused(endpoint, message, words):
    with pytest.raises(ValueError, match=words):
        sent(endpoint, [{"role": "user", **message}])


def test_streams_are_asked_for_in_words():
    assert [sent(stream=stream)["stream"] for stream in (True, False)] == [True, False]


def test_a_key_is_sent_when_there_is_one():
    headers = codec(api_key=Secret("k\n")).encode(Request(endpoint="chat", messages=[USER], params={}), client_request_id=None).headers
    assert headers["Authorization"] == Secret("Bearer k")


def answer(*, status: int = 200, **data: Any) -> HttpReply:
    base = {} if status != 200 else {"model": "gemma4", "done": True, "done_reason": "stop", "message": {"role": "assistant", "content": "Hello"}}
    return HttpReply(status=status, body=json.dumps({**base, **data}).encode())


@pytest.mark.parametrize(
    ("data", "outcome"),
    [
        ({"prompt_eval_count": 11, "eval_count": 18}, ("stop", "Hello", Usage(input_tokens=11, output_tokens=18))),
        ({"done_reason": "length"}, ("length", "Hello", None)),
        ({"done_reason": None}, ("stop", "Hello", None)),
        # A prompt that was in the cache has no count; an answer of nothing has none either.
        ({"eval_count": 18}, ("stop", "Hello", None)),
        ({"prompt_eval_count": 11, "message": {"content": ""}}, ("stop", "", Usage(input_tokens=11, output_tokens=0))),
        ({"message": None, "response": "Hi"}, ("stop", "Hi", None)),
        ({"done_reason": "odd"}, ("unknown", "Hello", None)),
    ],
)
def test_answers(data, outcome):
    said = codec().decode(answer(**data))
    assert (said.finish, said.text, said.usage) == outcome


def test_calls_are_in_chats_form():
    said = codec().decode(
        answer(message={"content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"q": 1}}}, {"id": "x", "function": {"name": "g"}}]})
    )
    assert (said.finish, said.text) == ("tool", None)
    assert [(call["id"], call["function"]) for call in said.tool_calls] == [
        ("call_1", {"name": "f", "arguments": '{"q":1}'}),
        ("x", {"name": "g", "arguments": "{}"}),
    ]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(status=404, error="model 'x' not found"), Kind.MODEL_GONE),
        (answer(status=400, error='"x" does not support chat'), Kind.MODEL_GONE),
        (answer(status=400, error={"type": "exceed_context_size_error", "message": "too long", "n_ctx": 5}), Kind.CONTEXT),
        (answer(status=400, error="the input length exceeds the context length"), Kind.CONTEXT),
        (answer(status=503, error="server busy, please try again.  maximum pending requests exceeded"), Kind.OVERLOAD),
        (answer(status=500, error="llama runner process has terminated"), Kind.SERVER),
        (answer(status=401, error="unauthorized"), Kind.AUTH),
        (answer(error="out of memory"), Kind.SERVER),
        (answer(error={"code": 503, "message": "busy"}), Kind.OVERLOAD),
        (answer(done=False), Kind.CUT),
        (answer(done_reason="load", message={"content": ""}), Kind.BAD_REQUEST),
        (answer(message=None), Kind.PROTOCOL),
        (HttpReply(status=200, body=b"Ollama is running"), Kind.PROTOCOL),
    ],
)
def test_faults(reply, kind):
    assert codec().decode(reply).kind is kind


def test_a_stream_that_nobody_asked_for_is_read_all_the_same():
    body = b'{"message": {"content": "Hel"}, "done": false}\n{"message": {"content": "lo"}, "done": true, "done_reason": "stop"}\n'
    assert codec().decode(HttpReply(status=200, body=body)).text == "Hello"


def test_embeddings():
    made = codec("embeddings")
    requests = [
        Request(endpoint="embeddings", messages=[{"role": "user", "content": text}], params={"dimensions": 2}, body={"options": {"num_ctx": 9}})
        for text in "ab"
    ]
    data = json.loads(made.encode_many(requests, client_request_id=None).body)
    ollama._types.EmbedRequest.model_validate(data)
    assert data == {"model": "gemma4", "input": ["a", "b"], "truncate": False, "dimensions": 2, "options": {"num_ctx": 9}}
    reply = HttpReply(status=200, body=b'{"model": "gemma4", "embeddings": [[1, 0.5], [2, 3]], "prompt_eval_count": 5}')
    first, second = made.decode_many(reply, 2, sizes=(3, 1))
    assert (first.vector, second.vector) == ([1, 0.5], [2, 3])
    assert [one.usage.input_tokens for one in (first, second)] == [4, 1]
    assert made.decode_many(reply, 3).kind is Kind.PROTOCOL
    assert made.decode_many(answer(status=400, error="the input length exceeds the context length"), 2).kind is Kind.CONTEXT


@pytest.mark.parametrize(
    ("model", "base_url", "free"),
    [
        ("gemma4", "http://127.0.0.1:11434", True),
        ("gemma4", "http://gpu.example:11434", True),
        ("gpt-oss:120b-cloud", "http://127.0.0.1:11434", False),
        ("gpt-oss:120b", "https://ollama.com", False),
    ],
)
def test_ones_own_ollama_is_free_and_its_cloud_is_not(model, base_url, free):
    prices = price_finder(ModelSpec.model_validate({"provider": "ollama", "model": model}), base_url)(model, 1.8e9, None)
    assert (prices is not None and prices.worst(10**6, 10**6) == 0) is free
