"""Answers on Gemini's wire, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.core.json import dumps
from batchllm.core.nouns import Fault, Kind, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.gemini import GeminiGenerate

CODEC = GeminiGenerate(base_url="https://h", model="gemini-3.8-flash", api_key=None, headers={})

USAGE = {"promptTokenCount": 1210, "cachedContentTokenCount": 1000, "candidatesTokenCount": 12, "thoughtsTokenCount": 48, "totalTokenCount": 1270}
PARTS = [
    {"text": "hm", "thought": True},
    {"text": "Li"},
    {"text": "má"},
    {"functionCall": {"name": "lookup", "args": {"q": "é"}}, "thoughtSignature": "c2ln"},
    {"functionCall": {"id": "own", "name": "lookup"}},
]
FULL: dict[str, Any] = {
    "candidates": [{"index": 0, "content": {"role": "model", "parts": PARTS}, "finishReason": "STOP", "safetyRatings": []}],
    "usageMetadata": USAGE,
    "modelVersion": "gemini-3.8-flash",
    "responseId": "abc",
}
WHOLE = CODEC.decode(HttpReply(status=200, body=dumps(FULL)))


def answer(candidate: dict[str, Any], **more: Any) -> Reply | Fault:
    return CODEC.decode(HttpReply(status=200, body=dumps({"candidates": [candidate], **more})))


def test_a_full_answer():
    from google.genai import types

    types.GenerateContentResponse.model_validate(FULL)  # the literal is what the SDK knows as a response
    assert (
        Reply(
            text="Limá",
            finish="tool",
            finish_raw="STOP",
            usage=Usage(input_tokens=1210, output_tokens=60, cached_input_tokens=1000, reasoning_tokens=48),
            tool_calls=(
                {
                    "id": "call_abc_0",
                    "type": "function",
                    "function": {"name": "lookup", "arguments": '{"q":"é"}'},
                    # The signature must come back with its call in the next turn.
                    "extra_content": {"google": {"thought_signature": "c2ln"}},
                },
                {"id": "own", "type": "function", "function": {"name": "lookup", "arguments": "{}"}},
            ),
            provider_model="gemini-3.8-flash",
            request_id="abc",
        )
        == WHOLE
    )


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ({"finishReason": "STOP", "content": {"parts": [{"text": "a"}]}}, ("a", "stop")),
        ({"finishReason": "STOP"}, ("", "stop")),
        ({"finishReason": "STOP", "content": {"role": "model"}}, ("", "stop")),
        ({"finishReason": "MAX_TOKENS"}, ("", "length")),
        ({"finishReason": "CONTINUATION", "content": {"parts": [{"text": "a"}]}}, ("a", "length")),
        ({"finishReason": "SAFETY", "content": {"parts": [{"text": "a"}]}}, ("a", "filter")),
        ({"finishReason": "FINISH_REASON_UNSPECIFIED"}, (None, "unknown")),
        ({"content": {"parts": [{"text": "a"}, 5, {"text": 6}, {"inlineData": {}}]}}, ("a", "unknown")),
    ],
)
def test_content_and_finish(candidate, expected):
    reply = answer(candidate)
    assert isinstance(reply, Reply)
    assert (reply.text, reply.finish) == expected


def test_every_finish_reason_of_the_sdk_is_known():
    from google.genai import types

    from batchllm.providers.gemini_reply import FINISH

    unknown = {reason.value for reason in types.FinishReason} - FINISH.keys()
    assert unknown == {"FINISH_REASON_UNSPECIFIED", "PUP_LIMITED_DISABLED"}


def test_a_broken_call_says_what_was_wrong():
    fault = answer({"finishReason": "MALFORMED_FUNCTION_CALL", "finishMessage": "Malformed function call: f("}, usageMetadata=USAGE, responseId="abc")
    assert (fault.kind, fault.billed, fault.usage.output_tokens, fault.provider_code) == (Kind.CUT, "yes", 60, "MALFORMED_FUNCTION_CALL")
    assert "Malformed function call: f(" in fault.message


def test_a_blocked_prompt_says_why():
    reply = CODEC.decode(HttpReply(status=200, body=dumps({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}})))
    assert (reply.finish, reply.finish_raw, reply.refusal, reply.usage) == (
        "filter",
        "SAFETY",
        "the prompt was blocked (SAFETY)",
        Usage(input_tokens=9, output_tokens=0),
    )


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (USAGE, (1210, 60, 1000, 48)),
        ({"promptTokenCount": 12, "candidatesTokenCount": 3, "totalTokenCount": 15}, (12, 3, 0, 0)),
        ({"promptTokenCount": 12, "toolUsePromptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 20}, (17, 3, 0, 0)),
        # Counts that are 0 are absent.
        ({"promptTokenCount": 12, "totalTokenCount": 12}, (12, 0, 0, 0)),
        ({"promptTokenCount": 12, "thoughtsTokenCount": 7, "totalTokenCount": 19}, (12, 7, 0, 7)),
        # What only the total knows of is output.
        ({"promptTokenCount": 12, "totalTokenCount": 40}, (12, 28, 0, 0)),
        ({"promptTokenCount": "12", "candidatesTokenCount": 3.0}, (12, 3, 0, 0)),
        ({"promptTokenCount": 12, "cachedContentTokenCount": 13, "candidatesTokenCount": 3}, (12, 3, 0, 0)),
        # Unknown is not zero.
        (None, None),
        ([], None),
        ({}, None),
        ({"promptTokenCount": 0, "candidatesTokenCount": 0, "totalTokenCount": 0}, None),
        ({"candidatesTokenCount": 3}, None),
        ({"promptTokenCount": -1, "candidatesTokenCount": 3}, None),
    ],
)
def test_usage(usage, expected):
    made = answer({"finishReason": "STOP"}, usageMetadata=usage).usage
    assert (made and (made.input_tokens, made.output_tokens, made.cached_input_tokens, made.reasoning_tokens)) == expected


@pytest.mark.parametrize(("told", "tier"), [("FLEX", "flex"), ("standard", "standard"), ("unspecified", None), (None, None)])
def test_service_tier(told, tier):
    assert answer({"finishReason": "STOP"}, usageMetadata={**USAGE, "serviceTier": told}).service_tier == tier


def test_no_limit_headers():
    assert CODEC.hints({"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "1"}) == ()


def frame(*parts: Any, finish: str | None = None, **more: Any) -> bytes:
    candidate = {
        "index": 0,
        **({"content": {"role": "model", "parts": list(parts)}} if parts else {}),
        **({"finishReason": finish} if finish else {}),
    }
    body = {"candidates": [candidate], "modelVersion": "gemini-3.8-flash", "responseId": "abc", **more}
    return f"data: {json.dumps(body, ensure_ascii=False)}\r\n\r\n".encode()


FRAMES = [
    frame(PARTS[0], usageMetadata={"promptTokenCount": 1210, "totalTokenCount": 1210}),
    frame(PARTS[1], usageMetadata={**USAGE, "candidatesTokenCount": 2, "totalTokenCount": 1260}),
    frame(PARTS[2]),
    frame(*PARTS[3:]),
    frame({"text": ""}, finish="STOP", usageMetadata=USAGE),
]
STREAM = b"".join(FRAMES)
CAME = HttpReply(status=200, body=b"")
CUT = Fault(kind=Kind.NETWORK, message="the body was cut short", billed="maybe")


def read(stream: bytes, came: HttpReply | Fault = CAME, cuts: tuple[int, ...] = ()) -> Reply | Fault:
    decoder = CODEC.decoder()
    for start, stop in zip((0, *cuts), (*cuts, len(stream)), strict=True):
        decoder.feed(stream[start:stop])
    return decoder.end(came)


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
    pieces = [b": hello\n\n", *FRAMES]
    assert [decoder.feed(piece) for piece in pieces] == [False, True, True, True, True, False]


ERROR = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
HALF = b"".join(FRAMES[:3])


@pytest.mark.parametrize(
    ("stream", "came", "expected"),
    [
        # Once the finish reason was seen, nothing that happens to the connection takes the answer away.
        (STREAM, CUT, None),
        (STREAM.rstrip(), CAME, None),
        (STREAM + b"data: " + json.dumps(ERROR).encode() + b"\n\n", CAME, None),
        # The frames under another content type, or in one array (a proxy lost `alt=sse`).
        (b"", HttpReply(status=200, body=STREAM), None),
        (b"", HttpReply(status=200, body=b"[" + b",".join(line[6:] for line in STREAM.splitlines() if line.startswith(b"data: ")) + b"]"), None),
        # The usage seen so far isn't the bill: nobody knows how far the server went, so none is booked and the reservation stays.
        (HALF, CAME, (Kind.CUT, "yes", None)),
        (HALF, CUT, (Kind.NETWORK, "yes", None)),
        (frame(PARTS[1]), CAME, (Kind.CUT, "yes", None)),
        (b"", CAME, (Kind.CUT, "maybe", None)),
        (b"", CUT, (Kind.NETWORK, "maybe", None)),
        # An error may be bare JSON, on one line or on many, in a list or not.
        (HALF + json.dumps(ERROR).encode() + b"\n", CAME, (Kind.OVERLOAD, "yes", 50)),
        (HALF + json.dumps(ERROR, indent=2).encode(), CUT, (Kind.OVERLOAD, "yes", 50)),
        (json.dumps([ERROR], indent=2).encode(), CAME, (Kind.OVERLOAD, "maybe", None)),
        (HALF + b"data: " + json.dumps(ERROR).encode() + b"\n\n", CAME, (Kind.OVERLOAD, "yes", 50)),
        (HALF + frame(finish="MALFORMED_RESPONSE"), CAME, (Kind.CUT, "yes", 50)),
    ],
)
def test_how_a_stream_ends(stream, came, expected):
    outcome = read(stream, came)
    if expected is None:
        assert outcome == WHOLE
    else:
        assert isinstance(outcome, Fault)
        assert (outcome.kind, outcome.billed, outcome.usage and outcome.usage.output_tokens) == expected
        assert outcome.message


def test_a_blocked_prompt_in_a_stream():
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}
    reply = read(b"data: " + json.dumps(blocked).encode() + b"\n\n")
    assert (reply.finish, reply.finish_raw) == ("filter", "SAFETY")


def test_what_is_no_stream_is_decoded_as_usual():
    assert read(b"", HttpReply(status=200, body=dumps(FULL))) == WHOLE
    assert read(b"", HttpReply(status=503, body=dumps([ERROR]))).kind is Kind.OVERLOAD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([
        "error", "candidates", "content", "parts", "text", "functionCall", "args", "id", "name", "finishReason", "finishMessage", "usageMetadata",
        "promptFeedback", "blockReason", "promptTokenCount", "candidatesTokenCount", "totalTokenCount", "thoughtSignature", "serviceTier", "code", "status",
    ]), inner | st.sampled_from(["STOP", "SAFETY", "MALFORMED_FUNCTION_CALL", "PUP_LIMITED_DISABLED"]), max_size=6),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([200, 204, 302, 400, 404, 429, 500]), st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_decode_never_raises(status, body):
    outcome = CODEC.decode(HttpReply(status=status, headers={"retry-after": "x"}, body=body))
    assert isinstance(outcome, Reply | Fault)
    dumps([outcome.text, list(outcome.tool_calls)] if isinstance(outcome, Reply) else outcome.message)


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=6), st.binary(max_size=30), st.sampled_from([CAME, CUT]))
def test_the_stream_decoder_never_raises(values, junk, came):
    stream = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values) + junk
    assert isinstance(read(stream, came), Reply | Fault)
