"""Whatever stands at whatever place of a request, the simulator answers: a client's nonsense is a 400, never a crash of the server."""

from __future__ import annotations

import copy

import pytest

from batchllm.core import json
from batchllm.core.wire import HttpCall
from batchllm.simulator import Simulator

JUNK = (None, True, 0, -1, 1.5, "", "5m", [], {}, [None], {"a": None}, ["a"], {"type": "text"})
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
MARK = {"type": "ephemeral", "ttl": "5m"}
ANTHROPIC = {
    "model": "m",
    "max_tokens": 50,
    "system": [{"type": "text", "text": "x", "cache_control": MARK}],
    "messages": [
        {"role": "user", "content": "lookup"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "lookup", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "y"}]}]},
        {"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "eA=="}}]},
    ],
    "tools": [{"name": "lookup", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "lookup"},
    "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
    "thinking": {"type": "adaptive"},
    "stop_sequences": ["a"],
}
GEMINI = {
    "contents": [
        {"role": "user", "parts": [{"text": "x"}, {"inlineData": {"mimeType": "image/png", "data": "eA=="}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "lookup", "args": {}}}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "lookup", "response": {"a": 1}}}]},
    ],
    "systemInstruction": {"parts": [{"text": "s"}]},
    "tools": [
        {"functionDeclarations": [{"name": "lookup", "parameters": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "minLength": "3"}}}}]}
    ],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["lookup"]}},
    "generationConfig": {
        "maxOutputTokens": 9,
        "candidateCount": 2,
        "stopSequences": ["a"],
        "temperature": 1,
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}}, "required": ["a"]},
        "thinkingConfig": {"thinkingBudget": 3},
    },
}
EMBED = {"requests": [{"model": "models/m", "content": {"parts": [{"text": "x"}]}, "outputDimensionality": 8, "taskType": "X"}]}
CLAUDE = {"x-api-key": "k", "anthropic-version": "2026-10-21"}
GOOGLE = {"x-goog-api-key": "k"}


def places(value, path=()):
    yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


@pytest.mark.parametrize(
    ("path", "headers", "right"),
    [
        ("/v1/messages", CLAUDE, ANTHROPIC),
        ("/v1/messages/count_tokens", CLAUDE, ANTHROPIC),
        ("/v1beta/models/m:generateContent", GOOGLE, GEMINI),
        ("/v1beta/models/m:countTokens", GOOGLE, GEMINI),
        ("/v1beta/models/m:batchEmbedContents", GOOGLE, EMBED),
    ],
)
def test_junk_at_any_place(path, headers, right):
    simulator = Simulator()

    def status(document):
        script = simulator.receive(HttpCall(url="http://sim" + path, body=json.dumps(document), headers=headers), now=0.0, utc=1.8e9)
        simulator.finish(script, now=0.0, utc=1.8e9, delivered=True)
        json.loads(script.body)
        return script.status

    assert status(right) == 200
    met = set()
    for place in places(right):
        for junk in JUNK if place else ():
            document = copy.deepcopy(right)
            holder = document
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = junk
            met.add(status(document))
    assert met == {200, 400}
