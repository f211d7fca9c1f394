"""Answers on Anthropic's wire, whole and streamed, and what its headers say of the limits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, Kind, LimitHint, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.anthropic import AnthropicMessages

CODEC = AnthropicMessages(base_url="https://h", model="claude-haiku-5-5", api_key=None, headers={})

USAGE = {"input_tokens": 12, "output_tokens": 3}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "sig"}
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "lookup", "input": {"q": "é"}}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "lookup", "arguments": '{"q":"é"}'}}
FULL: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5-20260911",
    "content": [THOUGHT, {"type": "text", "text": '{"label":'}, {"type": "text", "text": '"spam"}'}, TOOL],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 52,
        "cache_creation_input_tokens": 100,
        "cache_read_input_tokens": 18000,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 210,
        "output_tokens_details": {"thinking_tokens": 150},
        "service_tier": "standard",
        "speed": "standard",
    },
}


def answer(content: Any, stop: str | None = "end_turn", **more: Any) -> Reply | Fault:
    return CODEC.decode(HttpReply(status=200, body=dumps({"content": content, "stop_reason": stop, **more})))


def test_a_full_answer():
    from anthropic.types import Message

    Message.model_validate(FULL)  # the literal is what the SDK knows as a message
    reply = CODEC.decode(HttpReply(status=200, headers={"request-id": "req_1"}, body=dumps(FULL)))
    assert reply == Reply(
        text='{"label":"spam"}',
        finish="tool",
        finish_raw="tool_use",
        usage=Usage(input_tokens=18152, output_tokens=210, cached_input_tokens=18000, cache_write_tokens=100, reasoning_tokens=150),
        # Thinking must come back with its call in the next turn.
        tool_calls=({**CALL, "extra_content": {"anthropic": {"thinking": [THOUGHT]}}},),
        provider_model="claude-haiku-5-5-20260911",
        service_tier="standard",
        request_id="req_1",
    )


def test_hidden_thinking_comes_back_too_but_unsigned_thinking_does_not():
    hidden = {"type": "redacted_thinking", "data": "x"}
    assert answer([hidden, TOOL], "tool_use").tool_calls[0]["extra_content"] == {"anthropic": {"thinking": [hidden]}}
    assert answer([{"type": "thinking", "thinking": "hm"}, TOOL], "tool_use").tool_calls == (CALL,)


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    ("stop", "content", "expected"),
    [
        ("end_turn", [text("a")], ("a", "stop", 0)),
        ("stop_sequence", [text("a"), text("b")], ("ab", "stop", 0)),
        ("end_turn", [], ("", "stop", 0)),
        ("max_tokens", [THOUGHT], ("", "length", 0)),
        ("model_context_window_exceeded", [text("a")], ("a", "length", 0)),
        ("pause_turn", [text("a")], ("a", "length", 0)),
        ("tool_use", [TOOL], (None, "tool", 1)),
        ("end_turn", [TOOL, TOOL], (None, "tool", 2)),
        ("max_tokens", [TOOL], ("", "length", 1)),
        ("refusal", [text("a")], ("a", "refusal", 0)),
        ("shrug", [text("a")], ("a", "unknown", 0)),
        (None, [text("a"), {"type": "web_search_tool_result"}, "x", {"type": "text", "text": 5}], ("a", "unknown", 0)),
    ],
)
def test_content_and_finish(stop, content, expected):
    reply = answer(content, stop)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish, len(reply.tool_calls)) == expected
    assert reply.finish_raw == stop


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"type": "refusal", "category": "bio", "explanation": "It could harm."}, "It could harm."),
        ({"type": "refusal", "category": "cyber", "explanation": None}, "the model refused (category cyber)"),
        (None, "the model refused"),
    ],
)
def test_a_refusal_says_why(details, words):
    assert answer([], "refusal", stop_details=details).refusal == words


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, (12, 3, 0, 0, 0)),
        ({**USAGE, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 6}, (23, 3, 5, 6, 0)),
        (
            {**USAGE, "cache_read_input_tokens": None, "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2}},
            (15, 3, 0, 3, 0),
        ),
        ({"input_tokens": 0, "cache_read_input_tokens": 9, "output_tokens": 1}, (9, 1, 9, 0, 0)),
        ({"input_tokens": "12", "output_tokens": 3.0}, (12, 3, 0, 0, 0)),
        ({**USAGE, "output_tokens_details": {"thinking_tokens": 9}}, (12, 3, 0, 0, 3)),
        # Unknown is not zero.
        (None, None),
        ([], None),
        ({}, None),
        ({"input_tokens": 0, "output_tokens": 0}, None),
        ({"input_tokens": 12}, None),
        ({"output_tokens": 3}, None),
        ({"input_tokens": -1, "output_tokens": 3}, None),
        ({**USAGE, "cache_read_input_tokens": -5}, None),
        ({**USAGE, "output_tokens": 10**12}, None),
    ],
)
def test_usage(usage, expected):
    made = answer([text("a")], usage=usage).usage
    assert (made and (made.input_tokens, made.output_tokens, made.cached_input_tokens, made.cache_write_tokens, made.reasoning_tokens)) == expected


def test_what_was_written_for_an_hour_costs_more():
    from batchllm.cost import book

    told = {**USAGE, "cache_creation_input_tokens": 30, "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20}}
    usage = answer([text("a")], usage=told).usage
    assert (usage.cache_write_tokens, usage.cache_write_1h_tokens) == (30, 20)
    # USD per million: 4 fresh, 5 and 8 written, 20 out.
    assert book("anthropic", "claude-opus-5-5", utc=1_795_219_200.0).price(usage) == 1_000_000 * (12 * 4 + 10 * 5 + 20 * 8 + 3 * 20)


def test_the_fast_mode_is_a_tier_of_its_own():
    assert answer([text("a")], usage={**USAGE, "service_tier": "standard", "speed": "fast"}).service_tier == "fast"


DATE = {"date": "Sat, 21 Nov 2026 05:00:00 GMT"}


def limits(name: str, limit: str, remaining: str, reset: str = "2026-11-21T05:00:30Z") -> dict[str, str]:
    stem = f"anthropic-ratelimit-{name}"
    return {f"{stem}-limit": limit, f"{stem}-remaining": remaining, f"{stem}-reset": reset}


@pytest.mark.parametrize(
    ("headers", "hints"),
    [
        ({}, []),
        ({**DATE, **limits("requests", "1000", "999")}, [("requests", 1000, 999, 30.0)]),
        # Without the server's own date a moment means nothing.
        (limits("requests", "1000", "999"), [("requests", 1000, 999, None)]),
        ({**DATE, **limits("requests", "1000", "999", "2026-11-21T04:59:00Z")}, [("requests", 1000, 999, 0.0)]),
        ({**DATE, **limits("requests", "1000", "999", "soon")}, [("requests", 1000, 999, None)]),
        # Tokens are rounded to thousands: the lower end is taken.
        ({**DATE, **limits("input-tokens", "80000", "78000")}, [("input_tokens", 80000, 77500, 30.0)]),
        ({**DATE, **limits("input-tokens", "80000", "80000")}, [("input_tokens", 80000, 80000, 30.0)]),
        ({**DATE, **limits("output-tokens", "16000", "0")}, [("output_tokens", 16000, 0, 30.0)]),
        # `tokens` is the sum of both, or repeats one of them: no limit of its own.
        (
            {**limits("input-tokens", "80000", "80000"), **limits("output-tokens", "16000", "16000"), **limits("tokens", "96000", "96000")},
            [("input_tokens", 80000, 80000, None), ("output_tokens", 16000, 16000, None)],
        ),
        (
            {**limits("input-tokens", "80000", "80000"), **limits("output-tokens", "16000", "16000"), **limits("tokens", "50000", "50000")},
            [("input_tokens", 80000, 80000, None), ("output_tokens", 16000, 16000, None), ("tokens", 50000, 50000, None)],
        ),
        (limits("tokens", "50000", "50000"), [("tokens", 50000, 50000, None)]),
        ({**limits("requests", "0", "0"), **limits("input-tokens", "-1", "x")}, []),
    ],
)
def test_hints(headers, hints):
    expected = tuple(
        LimitHint(dimension=name, limit=limit, remaining=rest, reset_seconds=reset, window="minute") for name, limit, rest, reset in hints
    )
    assert CODEC.hints(headers) == expected


def frame(kind: str, **data: Any) -> bytes:
    return f"event: {kind}\r\ndata: {json.dumps({'type': kind, **data}, ensure_ascii=False)}\r\n\r\n".encode()


def delta(index: int, kind: str, **data: Any) -> bytes:
    return frame("content_block_delta", index=index, delta={"type": kind, **data})


START = frame("message_start", message={**FULL, "content": [], "stop_reason": None, "usage": {**FULL["usage"], "output_tokens": 1}})
BLOCKS = [
    frame("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
    delta(0, "thinking_delta", thinking="h"),
    frame("ping"),
    delta(0, "thinking_delta", thinking="m"),
    delta(0, "signature_delta", signature="sig"),
    frame("content_block_stop", index=0),
    frame("content_block_start", index=1, content_block={"type": "text", "text": ""}),
    delta(1, "text_delta", text='{"label":'),
    delta(1, "text_delta", text='"spam"}'),
    frame("content_block_stop", index=1),
    frame("content_block_start", index=2, content_block={**TOOL, "input": {}}),
    delta(2, "input_json_delta", partial_json=""),
    delta(2, "input_json_delta", partial_json='{"q":'),
    b": a comment\n\n",
    delta(2, "input_json_delta", partial_json='"é"}'),
    frame("content_block_stop", index=2),
    frame("some_new_event", x=1),
]
END = [
    frame(
        "message_delta",
        delta={"stop_reason": "tool_use", "stop_sequence": None},
        usage={"output_tokens": 210, "output_tokens_details": {"thinking_tokens": 150}},
    ),
    frame("message_stop"),
]
STREAM = b"".join([START, *BLOCKS, *END])
CAME = HttpReply(status=200, headers={"request-id": "req_1"}, body=b"")
CUT = Fault(kind=Kind.NETWORK, message="the body was cut short", billed="maybe")


def read(stream: bytes, came: HttpReply | Fault = CAME, cuts: tuple[int, ...] = ()) -> Reply | Fault:
    decoder = CODEC.decoder()
    for start, stop in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        decoder.feed(stream[start:stop])
    return decoder.end(came)


WHOLE = CODEC.decode(HttpReply(status=200, headers={"request-id": "req_1"}, body=dumps(FULL)))


def test_a_stream_is_the_same_answer():
    assert read(STREAM) == WHOLE


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=12).map(lambda cuts: tuple(sorted(cuts))))
def test_any_chunking_gives_the_same_answer(cuts):
    assert read(STREAM, cuts=cuts) == WHOLE


def test_one_byte_at_a_time():
    assert read(STREAM, cuts=tuple(range(1, len(STREAM)))) == WHOLE


def test_what_progress_is():
    decoder = CODEC.decoder()
    told = [decoder.feed(piece) for piece in (START, *BLOCKS, *END)]
    assert [index for index, progress in enumerate(told) if progress] == [2, 4, 5, 8, 9, 11, 13, 15]


ERROR = frame("error", error={"type": "overloaded_error", "message": "Overloaded"})
HALF = b"".join([START, *BLOCKS[:9]])


@pytest.mark.parametrize(
    ("stream", "came", "expected"),
    [
        # Once the stop reason was seen, nothing that happens to the connection takes the answer away.
        (b"".join([START, *BLOCKS, END[0]]), CUT, None),
        (b"".join([START, *BLOCKS, END[0].rstrip()]), CAME, None),
        # The usage of `message_start` knows of no output, so none is booked; the reservation stays.
        (HALF, CAME, (Kind.CUT, "yes", None)),
        (HALF, CUT, (Kind.NETWORK, "yes", None)),
        (START, CAME, (Kind.CUT, "maybe", None)),
        (b"", CAME, (Kind.CUT, "maybe", None)),
        (b"", CUT, (Kind.NETWORK, "maybe", None)),
        (START + ERROR, CAME, (Kind.OVERLOAD, "maybe", None)),
        (HALF + ERROR, CUT, (Kind.OVERLOAD, "yes", None)),
        # Nor does an error that comes after it.
        (STREAM + ERROR, CAME, None),
        # A stream under another content type.
        (b"", HttpReply(status=200, headers={"content-type": "text/plain"}, body=STREAM), None),
        (b'data: {"error":{"type":"rate_limit_error","message":"x"}}\n\n', CAME, (Kind.RATE, "maybe", None)),
    ],
)
def test_how_a_stream_ends(stream, came, expected):
    outcome = read(stream, came)
    if expected is None:
        assert isinstance(outcome, Reply)
        assert (outcome.text, outcome.usage) == (WHOLE.text, WHOLE.usage)
    else:
        assert isinstance(outcome, Fault)
        assert (outcome.kind, outcome.billed, outcome.usage and outcome.usage.input_tokens) == expected
        assert outcome.message


def test_nothing_was_sent_so_nothing_is_billed():
    refused = Fault(kind=Kind.UNREACHABLE, message="refused", billed="no", counts=False)
    assert read(b"", refused) == refused


def test_what_is_no_stream_is_decoded_as_usual():
    assert read(b"", HttpReply(status=200, headers={"request-id": "req_1"}, body=dumps(FULL))) == WHOLE
    assert read(b"", HttpReply(status=529, body=b"")).kind is Kind.OVERLOAD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "type", "error", "message", "content", "content_block", "delta", "index", "usage", "stop_reason", "text", "input", "id", "name", "stop_details",
        "input_tokens", "output_tokens", "cache_creation", "output_tokens_details", "partial_json", "signature", "category",
    ]), inner | st.sampled_from([
        "message_start", "content_block_start", "content_block_delta", "message_delta", "error", "text", "text_delta", "input_json_delta", "tool_use",
        "thinking", "signature_delta", "end_turn", "refusal", 0,
    ]), max_size=6),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([200, 204, 302, 400, 404, 429, 500]), st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_decode_never_raises(status, body):
    outcome = CODEC.decode(HttpReply(status=status, headers={"retry-after": "x"}, body=body))
    assert isinstance(outcome, Reply | Fault)
    dumps([outcome.text, list(outcome.tool_calls)] if isinstance(outcome, Reply) else outcome.message)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=6), st.sampled_from([CAME, CUT]))
def test_the_stream_decoder_never_raises(values, came):
    stream = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    assert isinstance(read(stream, came), Reply | Fault)
