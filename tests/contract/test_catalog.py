"""Lists of models on every wire, Ollama's progress, and the text of streams while they come."""

from __future__ import annotations

import json

import pytest

from batchllm.core.nouns import Fault, Kind
from batchllm.core.secret import Secret
from batchllm.core.wire import HttpReply
from batchllm.providers.catalog import Page, list_call, ollama_call, read_list
from batchllm.providers.deltas import Deltas
from batchllm.providers.pulling import Pulling

KEY = Secret("sk-right-key")


@pytest.mark.parametrize(
    ("provider", "base", "after", "url", "header"),
    [
        ("openai", "https://api.openai.com/v1", None, "https://api.openai.com/v1/models", ("Authorization", "Bearer sk-right-key")),
        ("openai-compatible", "http://h:8/v1/chat/completions", None, "http://h:8/v1/models", ("Authorization", "Bearer sk-right-key")),
        ("anthropic", "https://api.anthropic.com", None, "https://api.anthropic.com/v1/models?limit=1000", ("x-api-key", "sk-right-key")),
        ("anthropic", "http://h/v1/", "m-9", "http://h/v1/models?limit=1000&after_id=m-9", ("x-api-key", "sk-right-key")),
        ("gemini", "https://g.example/v1beta", "t", "https://g.example/v1beta/models?pageSize=1000&pageToken=t", ("x-goog-api-key", "sk-right-key")),
        ("ollama", "http://h:11434/api/", None, "http://h:11434/api/tags", ("Authorization", "Bearer sk-right-key")),
        (
            "openai-compatible",
            "https://r.openai.azure.com",
            None,
            "https://r.openai.azure.com/openai/models?api-version=2024-10-21",
            ("api-key", "sk-right-key"),
        ),
    ],
)
def test_calls(provider, base, after, url, header):
    call = list_call(provider, base, KEY, {"X-Own": "1"}, after=after)
    assert (call.method, call.url, call.body) == ("GET", url, b"")
    assert call.headers["X-Own"] == "1"
    name, value = header
    assert call.headers[name].reveal() == value
    assert "sk-right" not in repr(call)


def test_an_own_credential_replaces_the_key():
    for provider in ("anthropic", "gemini"):
        headers = list_call(provider, "https://h", KEY, {"authorization": "Bearer own"}).headers
        assert [name for name in headers if "key" in name.lower()] == []


def reply(body, status=200):
    return HttpReply(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode(), headers={"content-type": "application/json"})


@pytest.mark.parametrize(
    ("provider", "body", "first", "after"),
    [
        ("openai", {"data": [{"id": "gpt-4o", "owned_by": "o", "shutdown_date": "2027-01-14"}]}, ("gpt-4o", None, None, "2027-01-14", "o"), None),
        ("openai-compatible", {"data": [{"id": "m", "max_model_len": 4096}, 3, {"id": 4}]}, ("m", 4096, None, None, None), None),
        ("openai-compatible", [{"id": "m", "context_length": 8}], ("m", 8, None, None, None), None),
        (
            "anthropic",
            {
                "data": [{"id": "c", "display_name": "C", "max_input_tokens": 9, "max_tokens": 5, "retires_at": "2027-02-01T00:00:00Z"}],
                "has_more": True,
                "last_id": "c",
            },
            ("c", 9, 5, "2027-02-01", "C"),
            "c",
        ),
        (
            "gemini",
            {"models": [{"name": "models/g", "inputTokenLimit": 7, "outputTokenLimit": 3, "displayName": "G"}], "nextPageToken": "n"},
            ("g", 7, 3, None, "G"),
            "n",
        ),
        (
            "ollama",
            {"models": [{"name": "l:latest", "size": 2_000_000_000, "details": {"parameter_size": "3B"}}]},
            ("l:latest", None, None, None, "3B, 2.0 GB"),
            None,
        ),
    ],
)
def test_lists(provider, body, first, after):
    page = read_list(provider, reply(body))
    assert isinstance(page, Page)
    one = page.models[0]
    assert (one.id, one.context_window, one.max_output_tokens, one.shut_down, one.note) == first
    assert (len(page.models), page.after) == (1, after)


@pytest.mark.parametrize(
    ("provider", "status", "body", "kind"),
    [
        ("openai", 401, {"error": {"message": "no", "code": "invalid_api_key"}}, Kind.AUTH),
        ("anthropic", 401, {"type": "error", "error": {"type": "authentication_error", "message": "no"}}, Kind.AUTH),
        (
            "gemini",
            400,
            {"error": {"code": 400, "message": "API key not valid", "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}},
            Kind.AUTH,
        ),
        ("openai-compatible", 200, b"<html>", Kind.PROTOCOL),
        ("openai-compatible", 200, {"hello": 1}, Kind.PROTOCOL),
        ("ollama", 200, b"", Kind.PROTOCOL),
    ],
)
def test_no_list(provider, status, body, kind):
    fault = read_list(provider, reply(body, status))
    assert isinstance(fault, Fault)
    assert fault.kind is kind


def test_ollamas_own_calls():
    for base in ("", "http://127.0.0.1:11434", "http://127.0.0.1:11434/v1"):
        assert ollama_call(base, "pull", b"{}", None, {}).url == "http://127.0.0.1:11434/api/pull"


LINES = (
    b'{"status":"pulling manifest"}\n{"status":"pulling 6a07","digest":"sha256:6a07","total":10,"completed":4}\n\nnonsense\n[1]\n{"status":"success"}'
)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_progress_in_any_pieces(size):
    steps = []
    reader = Pulling(steps.append)
    for at in range(0, len(LINES), size):
        reader.feed(LINES[at : at + size])
    reader.end()
    assert [(step.status, step.total, step.completed) for step in steps] == [
        ("pulling manifest", None, None),
        ("pulling 6a07", 10, 4),
        ("success", None, None),
    ]
    assert (reader.done, reader.error) == (True, None)


def test_a_failure_inside_the_stream():
    reader = Pulling(lambda step: None)
    reader.feed(b'{"status":"pulling manifest"}\n{"error":"pull model manifest: file does not exist"}\n')
    assert (reader.done, reader.error) == (False, "pull model manifest: file does not exist")


STREAMS = {
    "chat": b': hi\n\ndata: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\ndata: {"choices":[{"delta":{"content":"L\xc3\xad"}}]}\r\n\r\n'
    b'data: {"choices":[{"delta":{"content":"ma"}}]}\n\ndata: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n',
    "completions": b'data: {"choices":[{"text":"L\xc3\xad"}]}\n\ndata: {"choices":[{"text":"ma"}]}\n\n',
    "responses": b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"L\xc3\xadma"}\n\n'
    b'data: {"type":"response.completed","response":{"id":"x"}}\n\n',
    "anthropic": b'event: ping\ndata: {"type":"ping"}\n\ndata: {"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"hm"}}\n\n'
    b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"L\xc3\xadma"}}\n\n',
    "gemini": b'data: {"candidates":[{"content":{"parts":[{"text":"hm","thought":true},{"text":"L\xc3\xad"}]}}]}\n\n'
    b'data: {"candidates":[{"content":{"parts":[{"text":"ma"}]},"finishReason":"STOP"}]}\n\n',
    "ollama chat": b'{"message":{"content":"L\xc3\xad"}}\n{"message":{"content":"ma"},"done":true}\n',
    "ollama generate": b'{"response":"L\xc3\xadma"}\n{"response":"","done":true}\n',
    "odd": b'data: {"choices":[3]}\n\ndata: {"choices":[{"delta":[]}]}\n\ndata: {"candidates":[{"content":3}]}\n\ndata: [1]\n\ndata: {"choices":[{"text":"L\xc3\xadma"}]}\n\n',
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 5, 4096])
def test_the_text_of_a_stream_while_it_comes(name, size):
    deltas = Deltas()
    data = STREAMS[name]
    assert "".join(deltas.feed(data[at : at + size]) for at in range(0, len(data), size)) == "Líma"
