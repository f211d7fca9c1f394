"""Requests on Gemini's wire: URL, headers, body. What is encoded is also held against the official SDK's types."""

from __future__ import annotations

from typing import Any

import pytest

from batchllm.core.json import loads
from batchllm.core.nouns import Request
from batchllm.core.secret import Secret
from batchllm.providers.gemini import GeminiGenerate, model_url
from batchllm.providers.gemini_request import known_schema

HI = [{"role": "user", "content": "hi"}]
TURN = {"role": "user", "parts": [{"text": "hi"}]}


def codec(model: str = "gemini-3.8-flash", headers: dict[str, Any] | None = None, key: str | None = "AIza-secret") -> GeminiGenerate:
    base = "https://generativelanguage.googleapis.com/v1beta"
    return GeminiGenerate(base_url=base, model=model, api_key=Secret(key) if key else None, headers=headers or {})


def request(messages: Any = HI, params: Any = None, body: Any = None) -> Request:
    return Request(endpoint="chat", messages=messages, params=params or {}, body=body or {})


def sent(messages: Any = HI, params: Any = None, body: Any = None, *, model: str = "gemini-3.8-flash") -> dict[str, Any]:
    made = loads(codec(model).encode(request(messages, params, body), client_request_id="job.1.1").body)
    check(made)
    return made


def check(body: dict[str, Any]) -> None:
    """The SDK's models, which refuse unknown fields, take every part of it."""
    from google.genai import types

    for content in body["contents"]:
        types.Content.model_validate(content)
    types.Content.model_validate(body.get("systemInstruction", {}))
    types.GenerationConfig.model_validate(body.get("generationConfig", {}))
    types.ToolConfig.model_validate(body.get("toolConfig", {}))
    for tool in body.get("tools", ()):
        types.Tool.model_validate(tool)
    if "serviceTier" in body:
        assert body["serviceTier"] in {tier.value for tier in types.ServiceTier}


HOST = "https://generativelanguage.googleapis.com"


@pytest.mark.parametrize(
    ("base", "model", "url"),
    [
        (HOST, "gemini-3.8-flash", f"{HOST}/v1beta/models/gemini-3.8-flash"),
        (f"{HOST}/v1beta/", "models/gemini-3.8-flash", f"{HOST}/v1beta/models/gemini-3.8-flash"),
        (f"{HOST}/v1", "tunedModels/mine", f"{HOST}/v1/tunedModels/mine"),
        (f"{HOST}/v1beta/openai/", "m", f"{HOST}/v1beta/models/m"),
        (f"{HOST}/v1beta/models", "m", f"{HOST}/v1beta/models/m"),
        ("http://127.0.0.1:8000/gemini", "a b", "http://127.0.0.1:8000/gemini/v1beta/models/a%20b"),
    ],
)
def test_model_url(base, model, url):
    assert model_url(base, model) == url


def test_methods_and_headers():
    made = codec(key="AIza-secret\n")
    call = made.encode(request(), client_request_id="job.1.1")
    assert call.url == f"{HOST}/v1beta/models/gemini-3.8-flash:generateContent"
    assert call.headers == {"Content-Type": "application/json", "Accept": "application/json", "x-goog-api-key": Secret("AIza-secret")}
    assert "AIza-secret" not in repr(call)
    stream = made.encode(request(), client_request_id=None, stream=True)
    assert (stream.url, stream.body) == (f"{HOST}/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse", call.body)
    # Two credentials at once are refused.
    own = codec(headers={"Authorization": Secret("Bearer x")}).encode(request(), client_request_id=None).headers
    assert "x-goog-api-key" not in own
    assert codec(headers={"X-Goog-Api-Key": "y"}).encode(request(), client_request_id=None).headers["X-Goog-Api-Key"] == "y"
    assert "x-goog-api-key" not in codec(key=None).encode(request(), client_request_id=None).headers


def call(identity: str, name: str, arguments: str, **more: Any) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}, **more}


def result(identity: str, name: str, response: Any) -> dict[str, Any]:
    return {"functionResponse": {"name": name, "response": response, "id": identity}}


@pytest.mark.parametrize(
    ("messages", "system", "turns"),
    [
        (HI, None, [TURN]),
        ([{"role": "system", "content": "s"}, *HI, {"role": "developer", "content": "d"}], {"parts": [{"text": "s"}, {"text": "d"}]}, [TURN]),
        ([{"role": "system", "content": ""}, *HI], None, [TURN]),
        ([*HI, *HI], None, [{"role": "user", "parts": [{"text": "hi"}, {"text": "hi"}]}]),
        ([*HI, {"role": "assistant", "content": "a"}, *HI], None, [TURN, {"role": "model", "parts": [{"text": "a"}]}, TURN]),
        (
            [
                *HI,
                {"role": "assistant", "content": "", "tool_calls": [call("c1", "f", '{"q":1}', extra_content={"google": {"thought_signature": "c2ln"}}), call("c2", "g", "")]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"a":1}'},
                {"role": "tool", "tool_call_id": "c2", "content": "plain"},
                {"role": "tool", "tool_call_id": "c9", "name": "h", "content": [{"type": "text", "text": "[1]"}]},
            ],
            None,
            [
                TURN,
                {
                    "role": "model",
                    "parts": [
                        {"functionCall": {"name": "f", "args": {"q": 1}, "id": "c1"}, "thoughtSignature": "c2ln"},
                        {"functionCall": {"name": "g", "args": {}, "id": "c2"}},
                    ],
                },
                {"role": "user", "parts": [result("c1", "f", {"a": 1}), result("c2", "g", {"output": "plain"}), result("c9", "h", {"output": [1]})]},
            ],
        ),
    ],
)  # fmt: skip
def test_messages(messages, system, turns):
    made = sent(messages)
    assert (made.get("systemInstruction"), made["contents"]) == (system, turns)


@pytest.mark.parametrize(
    ("part", "made"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
        ({"type": "image_url", "image_url": "https://h/a.jpg?x=1"}, {"fileData": {"fileUri": "https://h/a.jpg?x=1", "mimeType": "image/jpeg"}}),
        ({"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}, {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}),
        ({"type": "file", "file": {"file_data": "aGk=", "filename": "a.PDF"}}, {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}}),
        ({"type": "file", "file": {"file_id": "https://h/v1beta/files/abc"}}, {"fileData": {"fileUri": "https://h/v1beta/files/abc"}}),
        ({"inlineData": {"mimeType": "image/png", "data": "aGk="}}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
        ("a", {"text": "a"}),
    ],
)
def test_content_parts(part, made):
    assert sent([{"role": "user", "content": [part]}])["contents"] == [{"role": "user", "parts": [made]}]


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "system", "content": "s"}], "needs a user message"),
        ([{"role": "function", "name": "f", "content": "x"}], "no message role 'function'"),
        ([{"role": "user", "content": [{"type": "file", "file": {"file_data": "aGk="}}]}], "needs to know what a file is"),
        ([{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}], "needs `data`"),
        ([{"role": "user", "content": [{"type": "hologram"}]}], "'hologram' in a user message"),
        ([{"role": "user", "content": 5}], "must be text or a list of parts"),
        ([*HI, {"role": "tool", "tool_call_id": "c1", "content": "x"}], "the call 'c1', which no assistant message"),
        ([*HI, {"role": "assistant", "tool_calls": [call("t", "f", "nope")]}], "of a call of 'f' are no JSON object"),
    ],
)
def test_what_the_wire_cannot_take_fails_the_row(messages, words):
    with pytest.raises(ValueError, match=words):
        codec().encode(request(messages), client_request_id=None)


SCHEMA = {"$schema": "x", "type": "object", "properties": {"label": {"type": "string", "maxLength": 9}}, "required": ["label"]}
KNOWN = {name: value for name, value in SCHEMA.items() if name != "$schema"}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
MADE_TOOL = {"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": KNOWN}]}


def config(**fields: Any) -> dict[str, Any]:
    return {"generationConfig": fields}


def choice(mode: str, *names: str) -> dict[str, Any]:
    return {"tools": [MADE_TOOL], "toolConfig": {"functionCallingConfig": {"mode": mode, **({"allowedFunctionNames": list(names)} if names else {})}}}


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        ({}, {}),
        ({"max_tokens": 5, "temperature": 0, "top_p": 1, "top_k": 40, "seed": 7}, config(maxOutputTokens=5, temperature=0, topP=1, topK=40, seed=7)),
        ({"max_completion_tokens": 5, "max_tokens": 9}, config(maxOutputTokens=5)),
        ({"presence_penalty": 1, "frequency_penalty": 2, "logprobs": True, "top_logprobs": 3}, config(presencePenalty=1, frequencyPenalty=2, responseLogprobs=True, logprobs=3)),
        ({"stop": "END"}, config(stopSequences=["END"])),
        ({"stop": ["a", "b"]}, config(stopSequences=["a", "b"])),
        ({"n": 1, "stream": True, "model": "x", "messages": [], "stream_options": {}}, {}),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}}, config(responseMimeType="application/json", responseJsonSchema=KNOWN)),
        ({"response_format": {"type": "json_object"}}, config(responseMimeType="application/json")),
        ({"response_format": {"type": "text"}}, {}),
        ({"service_tier": "flex"}, {"serviceTier": "flex"}),
        ({"service_tier": "default"}, {"serviceTier": "standard"}),
        ({"service_tier": "auto"}, {}),
        ({"tools": [TOOL]}, {"tools": [MADE_TOOL]}),
        ({"tools": [{"type": "function", "function": {"name": "f"}}, {"googleSearch": {}}]}, {"tools": [{"functionDeclarations": [{"name": "f"}]}, {"googleSearch": {}}]}),
        ({"tools": [TOOL], "tool_choice": "auto"}, choice("AUTO")),
        ({"tools": [TOOL], "tool_choice": "required"}, choice("ANY")),
        ({"tools": [TOOL], "tool_choice": "none"}, choice("NONE")),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, choice("ANY", "f")),
        ({"tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ({"user": "u", "metadata": {"a": "b"}, "logit_bias": {}}, {}),
        ({"max_tokens": 5, "generationConfig": {"responseModalities": ["TEXT"]}, "cachedContent": "c"}, {**config(maxOutputTokens=5, responseModalities=["TEXT"]), "cachedContent": "c"}),
    ],
)  # fmt: skip
def test_parameters(params, fields):
    assert sent(params=params) == {"contents": [TURN], **fields}


@pytest.mark.parametrize(
    ("model", "effort", "thinking"),
    [
        ("gemini-3.8-flash", "low", {"thinkingLevel": "LOW"}),
        ("gemini-3.8-flash", "none", {"thinkingLevel": "MINIMAL"}),
        ("gemini-3.1-pro-preview", "minimal", {"thinkingLevel": "LOW"}),
        ("gemini-4-argon", "max", {"thinkingLevel": "XHIGH"}),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 1024}),
        ("gemini-2.5-flash-lite", "high", {"thinkingBudget": 24576}),
        ("gemini-2.0-flash", "low", None),
    ],
)
def test_effort(model, effort, thinking):
    assert sent(params={"reasoning_effort": effort}, model=model).get("generationConfig", {}).get("thinkingConfig") == thinking


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"tools": [TOOL], "tool_choice": "maybe"}, "no tool_choice 'maybe'"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "of type function only"),
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools of type function"),
        ({"functions": [{}]}, "use `tools`"),
        ({"response_format": {"type": "json_schema"}}, "no json_schema.schema"),
        ({"generationConfig": {"maxOutputTokens": 9}}, "use max_tokens"),
    ],
)
def test_parameters_that_make_no_sense(params, words):
    with pytest.raises(ValueError, match=words):
        codec().encode(request(params=params), client_request_id=None)


def test_raw_body_merges_into_the_generation_config():
    made = codec()
    params = {"max_tokens": 5}
    body = {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}, "safetySettings": []}
    assert loads(made.encode(request(params=params, body=body), client_request_id=None).body) == {
        "contents": [TURN],
        **config(maxOutputTokens=5, thinkingConfig={"thinkingBudget": 0}),
        "safetySettings": [],
    }
    # The parameters that rows share are made once; a raw part must not leak into them.
    assert loads(made.encode(request(params=params), client_request_id=None).body) == {"contents": [TURN], **config(maxOutputTokens=5)}


def test_each_thing_left_out_is_told_once():
    made = codec()
    for _ in range(2):
        made.encode(
            request([{"role": "user", "content": "hi", "name": "ann"}], {"user": "u", "verbosity": "low", "reasoning_effort": "none"}),
            client_request_id=None,
        )
    assert made.warnings == [
        "Gemini's contents have no `name`: it is left out",
        "gemini-3.8-flash takes no `verbosity` and no `user`: they are left out",
        "gemini-3.8-flash has no `reasoning_effort: none`: `minimal` is sent",
    ]


def test_schema_as_gemini_reads_it():
    schema = {"$schema": "x", "properties": {"const": {"const": 1}, "$schema": {"type": "string"}}, "anyOf": [{"const": "a"}], "enum": [{"const": 1}]}
    assert known_schema(schema) == {
        "properties": {"const": {"enum": [1]}, "$schema": {"type": "string"}},
        "anyOf": [{"enum": ["a"]}],
        "enum": [{"const": 1}],
    }
