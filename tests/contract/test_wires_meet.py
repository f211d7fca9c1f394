"""Codecs for Anthropic and Gemini talk to the simulator, which the official SDKs judge: what one writes the other reads, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

from batchllm.core.json import loads
from batchllm.core.nouns import Fault, Kind, Reply, Request
from batchllm.core.secret import Secret
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.providers.anthropic import AnthropicMessages
from batchllm.providers.gemini import GeminiGenerate
from batchllm.providers.gemini_embed import GeminiEmbed
from batchllm.retry.judge import judge
from batchllm.simulator import Settings, SimulatedTransport, Simulator

BASE = "http://simulator.invalid"
WIRES = {
    "anthropic": (AnthropicMessages, "claude-haiku-4-5"),
    "gemini": (GeminiGenerate, "gemini-3.8-flash"),
}
PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def ask(wire: str, messages: Any = "hi", params: Any = None, *, stream: bool = False, key: str = "sk-right", faults: Any = None) -> Reply | Fault:
    made, model = WIRES[wire]
    codec = made(base_url=BASE, model=model, api_key=Secret(key), headers={})
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    request = Request(endpoint="chat", messages=messages, params={"max_tokens": 200, **(params or {})})

    async def main() -> Reply | Fault:
        clock = VirtualClock()
        transport = SimulatedTransport(Simulator(Settings(latency_ms=5, keys=("sk-right",), **(faults or {})), started=clock.now()), clock)
        call = codec.encode(request, client_request_id=None, stream=stream)
        if not stream:
            came = await transport.send(call, timeout_seconds=10)
            return came if isinstance(came, Fault) else codec.decode(came)
        decoder = codec.decoder()
        return decoder.end(await transport.stream(call, decoder, timeout_seconds=10, stall_seconds=10))

    return run_virtual(main)


BOTH = pytest.mark.parametrize("wire", WIRES)
STREAMED = pytest.mark.parametrize("stream", [False, True])
TOOL = {
    "type": "function",
    "function": {"name": "lookup", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}},
}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["spam", "ham"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["label", "stars"],
}


@BOTH
@STREAMED
def test_an_answer(wire, stream):
    reply = ask(wire, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}], {"temperature": 0}, stream=stream)
    assert isinstance(reply, Reply)
    assert reply.text
    assert (reply.finish, reply.provider_model) == ("stop", WIRES[wire][1])
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0


@BOTH
def test_a_stream_and_a_whole_reply_are_the_same_answer(wire):
    whole, streamed = ask(wire), ask(wire, stream=True)
    assert (whole.text, whole.usage, whole.finish) == (streamed.text, streamed.usage, streamed.finish)


@BOTH
@STREAMED
def test_a_schema_is_followed(wire, stream):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    made = loads(ask(wire, "review: great", {"response_format": form}, stream=stream).text)
    assert made.keys() == {"label", "stars"}
    assert made["label"] in ("spam", "ham")


@BOTH
@STREAMED
def test_a_tool_is_called_and_its_result_taken(wire, stream):
    first = ask(wire, "look it up", {"tools": [TOOL], "tool_choice": "required"}, stream=stream)
    assert first.finish == "tool"
    (call,) = first.tool_calls
    assert call["function"]["name"] == "lookup"
    assert loads(call["function"]["arguments"]).keys() == {"q"}
    turns = [
        {"role": "user", "content": "look it up"},
        {"role": "assistant", "content": first.text, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": '{"found": 1}'},
    ]
    second = ask(wire, turns, {"tools": [TOOL], "tool_choice": "none"}, stream=stream)
    assert isinstance(second, Reply)
    assert (bool(second.text), second.finish) == (True, "stop")


FINISHES = {"length": "length", "empty_length": "length", "paused": "length", "window_full": "length", "empty": "stop", "usage_reasoning": "stop"}


@BOTH
@STREAMED
@pytest.mark.parametrize("marker", FINISHES)
def test_how_answers_end(wire, stream, marker):
    reply = ask(wire, f"hi [[sim:{marker}]]", stream=stream)
    assert isinstance(reply, Reply)
    assert (reply.finish, bool(reply.text)) == (FINISHES[marker], not marker.startswith("empty"))
    assert reply.usage.output_tokens >= reply.usage.reasoning_tokens
    assert bool(reply.usage.reasoning_tokens) == (marker in ("empty_length", "usage_reasoning"))


@BOTH
@STREAMED
@pytest.mark.parametrize("marker", ["refusal", "content_filter", "prompt_blocked"])
def test_refusals(wire, stream, marker):
    reply = ask(wire, f"hi [[sim:{marker}]]", stream=stream)
    assert isinstance(reply, Reply)
    assert judge(reply, on_length="ok").code == "refused"
    assert reply.usage.input_tokens > 0


@BOTH
def test_an_image_is_counted(wire):
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": PNG}}]
    assert ask(wire, [{"role": "user", "content": parts}]).usage.input_tokens > ask(wire, "what is this?").usage.input_tokens


@BOTH
def test_a_wrong_key(wire):
    assert ask(wire, key="sk-wrong").kind is Kind.AUTH


FAULTS = {
    "429_retry_after": Kind.RATE, "429_bare": Kind.RATE, "rpd": Kind.QUOTA_DAY, "limit_zero": Kind.MODEL_GONE, "spend_limit": Kind.MONEY,
    "usage_limits": Kind.MONEY, "402": Kind.MONEY, "401": Kind.AUTH, "403": Kind.AUTH, "region": Kind.AUTH, "model_not_found": Kind.MODEL_GONE,
    "path_not_found": Kind.MODEL_GONE, "context_length": Kind.CONTEXT, "content_policy": Kind.FILTER, "invalid_request": Kind.BAD_REQUEST,
    "413": Kind.BAD_REQUEST, "422": Kind.BAD_REQUEST, "408": Kind.CONFLICT, "409": Kind.CONFLICT, "499": Kind.CONFLICT, "500": Kind.SERVER,
    "502": Kind.BAD_GATEWAY, "503": Kind.OVERLOAD, "503_html": Kind.OVERLOAD, "529": Kind.OVERLOAD, "504": Kind.GATEWAY_TIMEOUT,
    "html_200": Kind.PROTOCOL, "redirect": Kind.PROTOCOL, "error_200": Kind.SERVER,
}  # fmt: skip


@BOTH
@STREAMED
@pytest.mark.parametrize("marker", FAULTS)
def test_faults(wire, stream, marker):
    outcome = ask(wire, f"hi [[sim:{marker}]]", stream=stream)
    assert isinstance(outcome, Fault)
    assert outcome.kind is FAULTS[marker]


@BOTH
@pytest.mark.parametrize(
    ("marker", "kinds"),
    [
        ("stream_no_finish", {Kind.CUT}),
        ("stream_cut", {Kind.CUT}),
        ("stream_error", {Kind.OVERLOAD, Kind.SERVER}),
        ("reset_mid", {Kind.NETWORK}),
        ("stall_mid", {Kind.TIMEOUT}),
        ("short_body", {Kind.NETWORK}),
    ],
)
def test_broken_streams(wire, marker, kinds):
    outcome = ask(wire, f"hi [[sim:{marker}]]", stream=True)
    assert isinstance(outcome, Fault)
    assert outcome.kind in kinds
    assert outcome.billed == "yes"
    # What is seen of a broken stream's usage is no bill, unless the server itself broke it off.
    assert outcome.usage is None or marker == "stream_error"


@BOTH
@pytest.mark.parametrize("marker", ["stream_split", "stream_comments", "stream_plain", "padding", "usage_strings", "slow_drip", "stream_usage_every"])
def test_strangely_sent_streams(wire, marker):
    reply = ask(wire, f"hi [[sim:{marker}]]", stream=True)
    assert isinstance(reply, Reply)
    assert (reply.finish, bool(reply.text), reply.usage.output_tokens > 0) == ("stop", True, True)


def test_embeddings():
    codec = GeminiEmbed(base_url=BASE, model="gemini-embedding-001", api_key=Secret("sk-right"), headers={})
    asked = [Request(endpoint="embeddings", messages=({"role": "user", "content": text},), params={"dimensions": 8}) for text in ("a", "b")]

    async def main() -> Any:
        clock = VirtualClock()
        transport = SimulatedTransport(Simulator(Settings(latency_ms=5), started=clock.now()), clock)
        return codec.decode_many(await transport.send(codec.encode_many(asked, client_request_id=None), timeout_seconds=10), 2)

    one, two = run_virtual(main)
    assert (len(one.vector), len(two.vector)) == (8, 8)
    assert one.vector != two.vector


@pytest.mark.parametrize(
    "params",
    [
        {"temperature": 0, "top_p": 0.5},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "lookup"}}},
        {"thinking": {"type": "enabled", "budget_tokens": 2000}},
        {"thinking": {"type": "disabled"}},
        {"reasoning_effort": "none"},
        {"reasoning_effort": "minimal", "seed": 3, "service_tier": "flex"},
    ],
    ids=str,
)
@pytest.mark.parametrize("model", ["claude-opus-5-5", "claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5"])
def test_what_a_claude_refuses_is_left_out_of_its_requests(model, params, monkeypatch):
    """The simulator refuses what the models refuse (protocols B.1), so an answer shows that the table knows it."""
    monkeypatch.setitem(WIRES, "anthropic", (AnthropicMessages, model))
    assert isinstance(ask("anthropic", params={"max_tokens": 4000, **params}), Reply)
