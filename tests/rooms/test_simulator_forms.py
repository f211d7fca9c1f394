"""Every fault has its form in every dialect, or is named among those that the wire can't have: kind by kind, so that a missing one is seen."""

from __future__ import annotations

import pytest

from batchllm.core import json
from batchllm.core.wire import HttpCall
from batchllm.simulator import Simulator
from batchllm.simulator.faults import BY_NAME, KINDS
from batchllm.simulator.provider import FINDERS

ANTHROPIC = {"x-api-key": "k", "anthropic-version": "2026-10-21"}
GOOGLE = {"x-goog-api-key": "k"}


def _chat(text, stream):
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    return "/v1/chat/completions", {}, {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream, **usage}


def _anthropic(text, stream):
    return "/v1/messages", ANTHROPIC, {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}], "stream": stream}


def _gemini(text, stream):
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/v1beta/models/m:{method}", GOOGLE, {"contents": [{"parts": [{"text": text}]}]}


def _gemini_embed(text, stream):
    assert not stream
    return "/v1beta/models/m:batchEmbedContents", GOOGLE, {"requests": [{"model": "models/m", "content": {"parts": [{"text": text}]}}]}


def _responses(text, stream):
    return "/v1/responses", {}, {"model": "m", "input": text, "stream": stream}


def _completions(text, stream):
    usage = {"stream_options": {"include_usage": True}} if stream else {}
    return "/v1/completions", {}, {"model": "m", "prompt": text, "stream": stream, **usage}


def _embeddings(text, stream):
    assert not stream
    return "/v1/embeddings", {}, {"model": "m", "input": text}


def _ollama_chat(text, stream):
    return "/api/chat", {}, {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}


def _ollama_generate(text, stream):
    return "/api/generate", {}, {"model": "m", "prompt": text, "stream": stream}


def _ollama_embed(text, stream):
    assert not stream
    return "/api/embed", {}, {"model": "m", "input": text}


WIRES = {
    "chat": _chat,
    "responses": _responses,
    "completions": _completions,
    "embeddings": _embeddings,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "gemini_embed": _gemini_embed,
    "ollama_chat": _ollama_chat,
    "ollama_generate": _ollama_generate,
    "ollama_embed": _ollama_embed,
}
CASES = [
    (wire, kind.name, stream)
    for wire in WIRES
    for kind in KINDS
    for stream in (False, True)
    if kind.wire in ("any", "stream" if stream else "plain") and not (stream and "embed" in wire)
]
# What the official SDKs and the documents (protocols B.8, C.2, C.5, F) call these: the status, and words of the body.
KNOWN = {
    ("anthropic", "529"): (529, "overloaded_error"),
    ("anthropic", "slow_down"): (429, "ramp_limit_exceeded"),
    ("anthropic", "spend_limit"): (429, "enforced_spend_limit_reached"),
    ("anthropic", "usage_limits"): (400, "You have reached your specified API usage limits"),
    ("anthropic", "on_hold"): (400, "organization_on_hold"),
    ("anthropic", "402"): (402, "billing_error"),
    ("anthropic", "401"): (401, "authentication_error"),
    ("anthropic", "403"): (403, "permission_error"),
    ("anthropic", "model_not_found"): (404, "not_found_error"),
    ("anthropic", "409"): (409, "conflict_error"),
    ("anthropic", "504"): (504, "timeout_error"),
    ("anthropic", "500"): (500, "api_error"),
    ("anthropic", "context_length"): (400, "prompt is too long: 210000 tokens > 200000 maximum"),
    ("anthropic", "refusal"): (200, '"stop_reason":"refusal"'),
    ("anthropic", "content_filter"): (200, '"category":"general_harms"'),
    ("anthropic", "window_full"): (200, "model_context_window_exceeded"),
    ("anthropic", "paused"): (200, "pause_turn"),
    ("anthropic", "length"): (200, '"stop_reason":"max_tokens"'),
    ("anthropic", "bad_arguments"): (200, "INVALID_JSON"),
    ("anthropic", "usage_cached"): (200, '"cache_read_input_tokens":1'),
    ("gemini", "529"): (503, "UNAVAILABLE"),
    ("gemini", "401"): (400, "API_KEY_INVALID"),
    ("gemini", "403"): (403, "PERMISSION_DENIED"),
    ("gemini", "402"): (402, "RESOURCE_EXHAUSTED"),
    ("gemini", "region"): (400, "FAILED_PRECONDITION"),
    ("gemini", "429_retry_after"): (429, "PerMinute"),
    ("gemini", "429_retry_after_ms"): (429, '"retryDelay":"0.25s"'),
    ("gemini", "rpd"): (429, "PerDay"),
    ("gemini", "499"): (499, "CANCELLED"),
    ("gemini", "504"): (504, "DEADLINE_EXCEEDED"),
    ("gemini", "500"): (500, "INTERNAL"),
    ("gemini", "model_not_found"): (404, "NOT_FOUND"),
    ("gemini", "context_length"): (400, "exceeds the maximum number of tokens allowed"),
    ("gemini", "bad_arguments"): (200, "MALFORMED_FUNCTION_CALL"),
    ("gemini", "prompt_blocked"): (200, "promptFeedback"),
    ("gemini", "content_filter"): (200, "SAFETY"),
    ("gemini", "refusal"): (200, "PROHIBITED_CONTENT"),
    ("gemini", "paused"): (200, "continuationToken"),
    ("gemini", "length"): (200, "MAX_TOKENS"),
    ("gemini", "finish_error"): (200, "OTHER"),
}


def met(wire, name, stream, simulator=None):
    """The fault's script, and that of the same request without it."""
    simulator = simulator or Simulator()
    path, headers, body = WIRES[wire](f"[[sim:{name}*1]] Tell me about lakes and the rivers that feed them.", stream)
    scripts = []
    for _ in range(2):
        script = simulator.receive(HttpCall(url="http://sim" + path, body=json.dumps(body), headers=headers), now=0.0, utc=1.8e9)
        simulator.finish(script, now=0.0, utc=1.8e9, delivered=True)
        scripts.append(script)
    return scripts


def dialect_of(wire):
    path, headers, _ = WIRES[wire]("x", False)
    return Simulator()._routes.get(path) or next(found for finder in FINDERS if (found := finder(path, {}, headers)) is not None)


def form(script):
    ignored = ("request-id", "x-request-id", "openai-processing-ms")
    headers = {name: value for name, value in script.headers.items() if name not in ignored}
    body = script.body.replace(script.ticket.request_id.encode(), b"")
    return script.status, headers, body, len(script.chunks), script.ending, script.seconds


@pytest.mark.parametrize(("wire", "name", "stream"), CASES)
def test_every_fault_has_its_form(wire, name, stream):
    wrong, right = met(wire, name, stream)
    assert right.ticket.fault is None
    assert right.status == 200
    if name in dialect_of(wire).without:
        assert wrong.ticket.fault is None
        assert form(wrong) == form(right)
        return
    assert wrong.ticket.fault == name
    assert form(wrong) != form(right)
    assert wrong.ticket.billed is wrong.ticket.executed
    if BY_NAME[name].executed == 1:
        assert wrong.ticket.usage is not None


@pytest.mark.parametrize(("wire", "name"), KNOWN)
def test_faults_as_the_documents_have_them(wire, name):
    status, words = KNOWN[wire, name]
    wrong, _ = met(wire, name, stream=False)
    assert wrong.status == status
    assert words in wrong.body.decode()


@pytest.mark.parametrize("name", ["spend_limit", "budget", "usage_limits", "on_hold", "401", "oversize"])
def test_what_needs_a_human_has_no_wait_hint(name):
    wrong, _ = met("anthropic", name, stream=False)
    assert not [header for header in wrong.headers if header.startswith("retry-after")]


@pytest.mark.parametrize(
    ("wire", "end"),
    [("anthropic", b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'), ("gemini", b"\n}\n")],
)
def test_an_error_in_a_stream(wire, end):
    wrong, _ = met(wire, "stream_error", stream=True)
    assert wrong.status == 200
    assert len(wrong.chunks) > 3
    assert wrong.body.endswith(end)
    assert wrong.chunks[-1].data.startswith(b"event: error" if wire == "anthropic" else b"{\n")


@pytest.mark.parametrize("name", ["stream_no_finish", "stream_no_done", "finish_null"])
@pytest.mark.parametrize(("wire", "finish"), [("anthropic", b'"stop_reason":"end_turn"'), ("gemini", b'"finishReason":"STOP"')])
def test_the_end_of_a_stream_that_is_none(wire, name, finish):
    wrong, right = met(wire, name, stream=True)
    assert finish in right.body
    assert (finish in wrong.body) is (name == "stream_no_done")
    assert (b"message_stop" in wrong.body) is (wire == "anthropic" and name == "finish_null")
