"""Requests on the OpenAI wire: URL, headers, body."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from batchllm.core.json import loads
from batchllm.core.nouns import Request
from batchllm.core.secret import Secret
from batchllm.providers.openai import OpenAIChat, endpoint_url
from batchllm.providers.openai_wire import SIMULATED
from batchllm.spec.hosts import PLAIN


def codec(**changes: Any) -> OpenAIChat:
    made = {"base_url": "https://api.openai.com/v1", "model": "gpt-6-luna", "api_key": Secret("sk-secret"), "headers": {}}
    return OpenAIChat(**{**made, "host": SIMULATED, **changes})


CODEC = codec()


def request(params: dict[str, Any] | None = None, body: dict[str, Any] | None = None) -> Request:
    return Request(endpoint="chat", messages=[{"role": "user", "content": "hi"}], params=params or {}, body=body or {})


def sent(made: OpenAIChat, *args: Any) -> dict[str, Any]:
    return loads(made.encode(request(*args), client_request_id=None).body)


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://h/v1", "https://h/v1/chat/completions"),
        ("https://h/v1/", "https://h/v1/chat/completions"),
        (" http://h:8000 ", "http://h:8000/chat/completions"),
        ("https://h/v1/chat/completions", "https://h/v1/chat/completions"),
        ("https://h/v1/chat/completions/", "https://h/v1/chat/completions"),
        ("https://h/openai/deployments/d?api-version=2024-10-21", "https://h/openai/deployments/d/chat/completions?api-version=2024-10-21"),
    ],
)
def test_endpoint_url(base, url):
    assert endpoint_url(base) == url


BASE = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("cap", "params", "body", "extra"),
    [
        (None, {}, {}, {}),
        (None, {"temperature": 0, "max_tokens": 5}, {}, {"temperature": 0, "max_tokens": 5}),
        ("max_completion_tokens", {"max_tokens": 5}, {}, {"max_completion_tokens": 5}),
        ("max_tokens", {"max_completion_tokens": 5}, {}, {"max_tokens": 5}),
        ("max_tokens", {"max_tokens": 5}, {}, {"max_tokens": 5}),
        ("max_tokens", {"max_completion_tokens": 5, "max_tokens": 9}, {}, {"max_tokens": 5}),
        ("max_completion_tokens", {"max_completion_tokens": 5, "max_tokens": 9}, {}, {"max_completion_tokens": 5}),
        ("max_completion_tokens", {}, {}, {}),
        # The raw body comes last and is not touched.
        ("max_completion_tokens", {"top_p": 1}, {"max_tokens": 7, "top_p": None}, {"max_tokens": 7, "top_p": None}),
        (None, {"n": 1, "stream": True, "stream_options": {}, "model": "other", "messages": [], "seed": 7}, {}, {"seed": 7}),
    ],
)
def test_wire_body(cap, params, body, extra):
    assert sent(codec(host=replace(SIMULATED, output_cap=cap)), params, body) == {**BASE, **extra}


def test_mappings_and_tuples_go_on_the_wire():
    frozen = Request(endpoint="chat", messages=(MappingProxyType({"role": "user", "content": "hi"}),), params=MappingProxyType({"stop": ("a", "b")}))
    assert loads(CODEC.encode(frozen, client_request_id=None).body) == {**BASE, "stop": ["a", "b"]}


def test_headers_carry_key_and_client_request_id():
    call = CODEC.encode(request(), client_request_id="job.17.1")
    assert call.headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Authorization": Secret("Bearer sk-secret"),
        "X-Client-Request-Id": "job.17.1",
    }
    assert "sk-secret" not in repr(call)
    # What the server would answer 400 to is left out.
    for unfit in ("é", "x" * 513, None):
        assert "X-Client-Request-Id" not in CODEC.encode(request(), client_request_id=unfit).headers
    # Any server of this wire gets it: `batchllm simulate` behind `provider: openai-compatible` logs it.
    assert codec(host=PLAIN).encode(request(), client_request_id="a").headers["X-Client-Request-Id"] == "a"


def test_own_headers_overrule_ours_in_any_case_and_lose_newlines():
    made = codec(
        api_key=Secret("sk-secret\n"), headers={"authorization": Secret("Basic x\n"), "x-client-request-id": "mine", "OpenAI-Project": " p "}
    )
    headers = made.encode(request(), client_request_id="job.17.1").headers
    assert headers == {
        "Content-Type": "application/json",
        "Accept": "application/json",
        "authorization": Secret("Basic x"),
        "x-client-request-id": "mine",
        "OpenAI-Project": "p",
    }
    assert codec(api_key=Secret("sk-secret\n")).encode(request(), client_request_id=None).headers["Authorization"] == Secret("Bearer sk-secret")
    assert "Authorization" not in codec(api_key=None).encode(request(), client_request_id=None).headers
