"""The simulator over real sockets, judged by code that is not ours: the official `openai` SDK, and a bare socket for what an SDK hides."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from typing import Any

import openai
import pytest
from served_simulator import booked, served

from batchllm.core import json
from batchllm.core.words import count_messages, count_text

MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]


@pytest.fixture(scope="module")
def server():
    with served(models=None) as found:
        yield found


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server[0], api_key="any", max_retries=0, timeout=5) as found:
        yield found


def posted(url, document, *, until_close):
    """Head and body of a reply, from a bare socket; `until_close` waits for the server to close the connection."""
    host, port = url.split("/")[2].split(":")
    body = json.dumps(document)
    with socket.create_connection((host, int(port)), timeout=5) as plug:
        plug.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        got = b""
        while piece := plug.recv(65536):
            got += piece
            if not until_close:
                break
    head, _, rest = got.partition(b"\r\n\r\n")
    return head, rest


def asked(text):
    return [{"role": "user", "content": text}]


def test_chat_completion(client):
    answer = client.chat.completions.with_raw_response.create(model="sim-small", messages=MESSAGES, max_completion_tokens=60)
    assert answer.headers["x-request-id"].startswith("req_")
    reply = answer.parse()
    assert reply.model == "sim-small"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens == count_messages(MESSAGES)
    assert reply.usage.completion_tokens == count_text(reply.choices[0].message.content)


@pytest.mark.parametrize(
    "text", ["Name a river.", "[[sim:stream_split]] Name a river.", "[[sim:stream_comments]] Name a river.", "[[sim:stream_no_done]] Name one."]
)
def test_stream_says_what_the_plain_answer_says(client, text):
    plain = client.chat.completions.create(model="sim-small", messages=asked(text))
    with client.chat.completions.create(model="sim-small", messages=asked(text), stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == plain.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_tool_call_plain_and_streamed(client):
    tool: Any = {
        "type": "function",
        "function": {"name": "lookup", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}},
    }
    kinds: Any = {"model": "sim-small", "messages": MESSAGES, "tools": [tool], "tool_choice": {"type": "function", "function": {"name": "lookup"}}}
    plain = client.chat.completions.create(**kinds).choices[0]
    assert plain.finish_reason == "tool_calls"
    function = plain.message.tool_calls[0].function
    assert function.name == "lookup"
    assert isinstance(json.loads(function.arguments)["q"], str)
    with client.chat.completions.create(**kinds, stream=True) as stream:
        pieces = [chunk.choices[0].delta.tool_calls[0].function.arguments for chunk in stream if chunk.choices[0].delta.tool_calls]
    assert "".join(pieces) == function.arguments


def test_json_schema_parses_into_a_model(client):
    pydantic = pytest.importorskip("pydantic")

    class City(pydantic.BaseModel):
        city: str
        people: int

    reply = client.chat.completions.parse(model="sim-small", messages=MESSAGES, response_format=City)
    assert isinstance(reply.choices[0].message.parsed, City)


def test_models(client):
    assert [model.id for model in client.models.list()] == ["sim-small", "sim-large"]
    assert client.models.retrieve("org/name").id == "org/name"


def test_async_client_many_at_once(server):
    async def main():
        async with openai.AsyncOpenAI(base_url=server[0], api_key="any", max_retries=0) as client:
            calls = [client.chat.completions.create(model="sim-small", messages=asked(f"Row {n}")) for n in range(50)]
            return [reply.choices[0].message.content for reply in await asyncio.gather(*calls)]

    assert len(set(asyncio.run(main()))) == 50


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("401", openai.AuthenticationError, "invalid_api_key"),
        ("403", openai.PermissionDeniedError, "unsupported_country_region_territory"),
        ("model_not_found", openai.NotFoundError, "model_not_found"),
        ("context_length", openai.BadRequestError, "context_length_exceeded"),
        ("422", openai.UnprocessableEntityError, None),
        ("409", openai.ConflictError, None),
        ("429_bare", openai.RateLimitError, "rate_limit_exceeded"),
        ("insufficient_quota", openai.RateLimitError, "insufficient_quota"),
        ("slow_down", openai.RateLimitError, "slow_down"),
        ("500", openai.InternalServerError, None),
        ("502", openai.InternalServerError, None),
        ("503", openai.InternalServerError, "server_is_overloaded"),
        ("413", openai.APIStatusError, None),
        ("reset", openai.APIConnectionError, None),
        ("reset_mid", openai.APIConnectionError, None),
        ("short_body", openai.APIConnectionError, None),
        ("refuse", openai.APIConnectionError, None),
    ],
)
def test_faults_are_the_errors_that_the_sdk_knows(client, fault, error, code):
    with pytest.raises(error) as caught:
        client.chat.completions.create(model="sim-small", messages=asked(f"[[sim:{fault}]]"))
    if isinstance(caught.value, openai.APIStatusError):
        assert caught.value.code == code


@pytest.mark.parametrize("fault", ["stall", "stall_mid"])
def test_a_stall_ends_by_the_clients_timeout_and_is_billed(fault):
    with served() as (url, simulator), openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="sim-small", messages=asked(f"[[sim:{fault}]]"))
        booked(simulator, 1)
        record = simulator.audit.records[0]
        assert (record.executed, record.billed, record.delivered) == (True, True, False)


def test_an_error_frame_in_a_stream(client):
    with (
        pytest.raises(openai.APIError, match="The server had an error"),
        client.chat.completions.create(model="sim-small", messages=asked("[[sim:stream_error]] x"), stream=True) as stream,
    ):
        list(stream)


@pytest.mark.parametrize("fault", ["gzip", "padding", "slow_drip", "usage_missing", "usage_strings"])
def test_variations_are_answers(client, fault):
    reply = client.chat.completions.create(model="sim-small", messages=asked(f"[[sim:{fault}]] x"))
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage is None) is (fault == "usage_missing")


@pytest.mark.parametrize(("fault", "whole"), [("close_idle", True), ("short_body", False), ("half_json", False)])
def test_bytes_on_the_wire(server, fault, whole):
    head, body = posted(server[0], {"model": "sim-small", "messages": asked(f"[[sim:{fault}]] x")}, until_close=fault != "half_json")
    promised = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    assert b"connection: close" not in head.lower()
    assert (len(body) == promised) is (fault != "short_body")
    if whole:
        json.loads(body)
    else:
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)


def test_key_model_and_limit():
    with served(keys=frozenset({"right-key"}), models=("one",), rpm=60, burst_seconds=1) as (url, simulator):
        with openai.OpenAI(base_url=url, api_key="wrong-key-12345", max_retries=0) as wrong, pytest.raises(openai.AuthenticationError) as caught:
            wrong.chat.completions.create(model="one", messages=MESSAGES)
        assert caught.value.code == "invalid_api_key"
        assert "wrong-key-12345" not in str(caught.value)
        with openai.OpenAI(base_url=url, api_key="right-key", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError):
                client.chat.completions.create(model="two", messages=MESSAGES)
            assert [model.id for model in client.models.list()] == ["one"]
            client.chat.completions.create(model="one", messages=MESSAGES)
            with pytest.raises(openai.RateLimitError) as refused:
                client.chat.completions.create(model="one", messages=MESSAGES)
        assert refused.value.type == "requests"
        headers = refused.value.response.headers
        assert 0 < int(headers["retry-after-ms"]) <= 1000
        assert headers["retry-after"] == "1"
        assert headers["x-ratelimit-limit-requests"] == "60"
        booked(simulator, 4)
        assert simulator.summary()["refusals"] == 1


def test_a_client_that_goes_away_is_booked_as_not_delivered():
    with served(latency_ms=60_000, latency_sigma=0) as (url, simulator):
        host, port = url.split("/")[2].split(":")
        body = json.dumps({"model": "sim-small", "messages": MESSAGES})
        with socket.create_connection((host, int(port))) as plug:
            plug.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            end = time.monotonic() + 5
            while simulator.in_flight < 1 and time.monotonic() < end:
                threading.Event().wait(0.005)
        booked(simulator, 1)
        record = simulator.audit.records[0]
        assert (record.executed, record.billed, record.delivered, record.status) == (True, True, False, 200)


def test_the_audit_over_http():
    with served() as (url, simulator), openai.OpenAI(base_url=url, api_key="any", max_retries=0) as client:
        for n in range(3):
            client.chat.completions.create(model="sim-small", messages=MESSAGES, extra_headers={"X-Client-Request-Id": f"job.{n}.1"})
        booked(simulator, 3)
        root = url.removesuffix("/v1")
        with urllib.request.urlopen(root + "/_audit") as reply:
            lines = [json.loads(line) for line in reply.read().splitlines()]
        with urllib.request.urlopen(root + "/_audit/summary") as reply:
            summary = json.loads(reply.read())
    assert [line["client_request_id"] for line in lines] == ["job.0.1", "job.1.1", "job.2.1"]
    assert {line["prompt_digest"] for line in lines} == {lines[0]["prompt_digest"]}
    assert summary["cost_pico"] == sum(line["input_tokens"] + line["output_tokens"] for line in lines)
    assert (summary["requests"], summary["delivered"], summary["in_flight"]) == (3, 3, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_tells_its_port_and_ends_when_asked(number):
    line = [sys.executable, "-m", "batchllm", "simulate", "--port", "0", "--latency-ms", "0", "--seed", "7", "--key", "k"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}) as process:
        try:
            told = process.stderr.readline()
            found = re.fullmatch(r"simulator on (http://127\.0\.0\.1:\d+/v1) \(seed 7, latency 0 ms, 1 key\)\n", told)
            assert found, told
            with openai.OpenAI(base_url=found[1], api_key="k", max_retries=0) as client:
                client.chat.completions.create(model="sim-small", messages=MESSAGES)
            with urllib.request.urlopen(found[1].removesuffix("/v1") + "/_audit/summary") as reply:
                assert json.loads(reply.read())["cost_pico"] > 0
            process.send_signal(number)
            assert process.wait(10) == 0
        finally:
            process.kill()
