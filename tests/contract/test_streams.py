"""Streams in any pieces: the parsers, and the outcome of OpenAI's and Ollama's streams with every bend that servers are known for."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.core.nouns import Fault, Kind, Reply, Usage
from batchllm.core.wire import HttpReply
from batchllm.providers.ndjson import Lines
from batchllm.providers.ollama_reply import OllamaStream
from batchllm.providers.openai_responses import ResponseStream
from batchllm.providers.openai_stream import CompletionStream
from batchllm.providers.sse import Sse

END = HttpReply(status=200, body=b"", headers={"content-type": "text/event-stream", "x-request-id": "req_1"})
CUT = Fault(kind=Kind.NETWORK, message="reset", billed="maybe")
STALL = Fault(kind=Kind.TIMEOUT, message="stall", billed="maybe")
NEVER_LEFT = Fault(kind=Kind.UNREACHABLE, message="refused")
USED = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}


def frame(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data, ensure_ascii=False).encode()) + b"\n\n"


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    return frame({"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}], **more})


def said(*texts: str) -> bytes:
    return b"".join(chunk({"content": text}) for text in texts)


DONE = frame(b"[DONE]")
TAIL = frame({"choices": [], "usage": USED})


def read(stream: Any, body: bytes, came: HttpReply | Fault = END, size: int = 7) -> Any:
    for start in range(0, len(body), size):
        stream.feed(body[start : start + size])
    return stream.end(came)


def brief(outcome: Reply | Fault) -> tuple[Any, ...]:
    if isinstance(outcome, Reply):
        return outcome.finish, outcome.text, outcome.usage
    return outcome.kind, outcome.billed, outcome.usage


# --- the parsers ---

EVENTS = (
    "\ufeffdata: 1\n\n: hello\r\n\r\nevent: a\r\nid: 7\ndata: é\ndata:  two\r\rdata\r\n\ndata:x:y\n\nevent: lost\n\nretry: 5\n\ndata: 🎈".encode()
)


@given(st.lists(st.integers(0, len(EVENTS)), max_size=40))
def test_events_come_out_alike_however_they_are_cut(cuts):
    places = [0, *sorted(cuts), len(EVENTS)]
    sse = Sse()
    events = [event for start, end in pairwise(places) for event in sse.feed(EVENTS[start:end])]
    assert events + sse.close() == [(None, "1"), ("a", "é\n two"), (None, "x:y"), (None, "🎈")]


def test_what_is_no_event_stream_is_kept_apart():
    sse = Sse()
    assert sse.feed(b'data: 1\n\n{"error": {\n"code": 429}}\nid: 1\n') == [(None, "1")]
    assert sse.close() == []
    assert json.loads(sse.stray) == {"error": {"code": 429}}


@pytest.mark.parametrize("parser", [Sse, Lines])
def test_a_long_line_in_small_pieces_takes_linear_time(parser):
    made = parser()
    began = time.perf_counter()
    for _ in range(200_000):
        made.feed(b"x" * 20)
    # Joining what is there to each piece would copy 400 GB.
    assert time.perf_counter() - began < 2


@given(st.lists(st.integers(0, 20), max_size=12))
def test_json_lines_come_out_alike_however_they_are_cut(cuts):
    body = '{"a":"é"}\r\n\n  \n{"b":'.encode()
    places = [0, *sorted(cuts), len(body)]
    lines = Lines()
    made = [line for start, end in pairwise(places) for line in lines.feed(body[start:end])]
    assert [line.strip() for line in made + lines.close()] == ['{"a":"é"}'.encode(), b'{"b":']


# --- chat ---

USAGE = Usage(input_tokens=12, output_tokens=3)
LI_MA = ("stop", "Lima 🎈", USAGE)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        pytest.param(
            chunk({"role": "assistant", "content": ""}) + said("Li", "ma 🎈") + chunk(finish="stop") + TAIL + DONE, LI_MA, id="OpenAI's own"
        ),
        pytest.param(said("Lima 🎈") + chunk(finish="stop", usage=USED), LI_MA, id="usage beside choices, no [DONE]"),
        pytest.param(said("Lima 🎈") + chunk(finish="stop", x_groq={"id": "r", "usage": USED}) + DONE, LI_MA, id="x_groq"),
        pytest.param(
            chunk({"content": "Lima"}, usage={"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13})
            + chunk({"content": " 🎈"}, "stop", usage=USED),
            LI_MA,
            id="usage in every chunk",
        ),
        pytest.param(
            said("Lima 🎈") + chunk(finish="stop", usage=USED) + frame({"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0}}),
            LI_MA,
            id="zeros after the usage",
        ),
        pytest.param(
            frame({"choices": [], "prompt_filter_results": []}) + said("Lima 🎈") + chunk(finish="stop") + TAIL, LI_MA, id="empty first choices"
        ),
        pytest.param(chunk({"role": "assistant", "content": None}) + said("Lima 🎈") + chunk(finish="stop") + TAIL, LI_MA, id="null first content"),
        pytest.param(
            b": OPENROUTER PROCESSING\n\n" + said("Lima 🎈").replace(b"\n", b"\r\n") + chunk(finish="stop") + TAIL, LI_MA, id="comments, CRLF"
        ),
        pytest.param(said("Lima 🎈") + chunk(finish="stop") + TAIL.rstrip(), LI_MA, id="no last blank line"),
        pytest.param(chunk({"content": [{"type": "text", "text": "Lima 🎈"}]}) + chunk(finish="stop") + TAIL, LI_MA, id="content in parts"),
        pytest.param(
            frame({"choices": [{"index": 1, "delta": {"content": "no"}, "finish_reason": "length"}]}) + said("Lima 🎈") + chunk(finish="stop") + TAIL,
            LI_MA,
            id="another choice",
        ),
        pytest.param(said("Lima 🎈") + chunk(finish="stop") + DONE, ("stop", "Lima 🎈", None), id="no usage"),
        pytest.param(
            said("Lima 🎈") + chunk(finish="stop", usage=USED) + frame({"error": {"message": "late", "code": 500}}),
            LI_MA,
            id="an error after the end",
        ),
        pytest.param(chunk({"reasoning_content": "hm"}) + chunk(finish="length") + TAIL, ("length", "", USAGE), id="thinking only"),
        pytest.param(chunk({"refusal": "I "}) + chunk({"refusal": "won't"}, "stop") + TAIL, ("refusal", None, USAGE), id="a refusal"),
        pytest.param(chunk(finish="content_filter") + TAIL, ("filter", None, USAGE), id="filtered"),
        pytest.param(
            frame({"choices": [{"index": 0, "text": "Lima", "finish_reason": None}]})
            + frame({"choices": [{"index": 0, "text": " 🎈", "finish_reason": "stop"}], "usage": USED}),
            LI_MA,
            id="a text completion",
        ),
        # What is no answer.
        pytest.param(said("Li") + DONE, (Kind.CUT, "yes", None), id="no finish reason"),
        pytest.param(said("Li") + TAIL + DONE, (Kind.CUT, "yes", USAGE), id="no finish reason but usage"),
        pytest.param(b"", (Kind.CUT, "maybe", None), id="nothing at all"),
        pytest.param(b": ping\n\n", (Kind.CUT, "maybe", None), id="comments only"),
        pytest.param(said("Li") + b'data: {"choices": [{"ind', (Kind.CUT, "yes", None), id="half a chunk"),
        pytest.param(
            frame({"error": {"message": "Rate limit", "code": "rate_limit_exceeded"}}) + DONE, (Kind.RATE, "maybe", None), id="an error frame first"
        ),
        pytest.param(said("Li") + frame({"error": {"message": "busy", "code": 503}}) + DONE, (Kind.OVERLOAD, "yes", None), id="an error frame later"),
        pytest.param(
            said("Li") + frame({"object": "error", "message": "queue is full", "code": 503}), (Kind.OVERLOAD, "yes", None), id="SGLang's flat error"
        ),
        pytest.param(
            said("Li") + frame({"error": {"code": 429, "message": "slow"}, "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}),
            (Kind.RATE, "yes", None),
            id="OpenRouter's error",
        ),
        pytest.param(said("Li") + chunk(finish="error") + DONE, (Kind.CUT, "yes", None), id="finish error"),
        pytest.param(
            said("Li") + chunk(x_groq={"id": "r", "error": "over capacity: server is overloaded"}),
            (Kind.OVERLOAD, "yes", None),
            id="Groq's error",
        ),
        pytest.param(
            said("Li") + b'[{"error": {"code": 503,\n"message": "overloaded"}}]', (Kind.OVERLOAD, "yes", None), id="bare JSON in mid-stream"
        ),
        pytest.param(b'{"error": {"message": "Bad key", "code": "invalid_api_key"}}', (Kind.AUTH, "maybe", None), id="bare JSON, not a stream"),
    ],
)
def test_chat(body, outcome):
    for size in (1, 7, 10_000):
        assert brief(read(CompletionStream(), body, size=size)) == outcome


def test_a_streamed_answer_is_what_the_whole_one_would_be():
    made = read(CompletionStream(), said("Lima") + chunk(finish="stop", service_tier="flex") + frame({"choices": [], "usage": {**USED, "cost": 0.5}}))
    assert made == Reply(
        text="Lima",
        finish="stop",
        finish_raw="stop",
        usage=USAGE,
        provider_model="m-1",
        service_tier="flex",
        request_id="req_1",
        provider_cost_usd=0.5,
    )


@pytest.mark.parametrize(
    ("body", "came", "outcome"),
    [
        (said("Li"), CUT, (Kind.NETWORK, "yes", None)),
        (said("Li"), STALL, (Kind.TIMEOUT, "yes", None)),
        (chunk({"content": "Li"}, usage=USED), CUT, (Kind.NETWORK, "yes", USAGE)),
        (b"", CUT, (Kind.NETWORK, "maybe", None)),
        (b"", NEVER_LEFT, (Kind.UNREACHABLE, "no", None)),
        # The answer was whole before the connection broke.
        (said("Lima 🎈") + chunk(finish="stop", usage=USED), CUT, LI_MA),
        (b"", HttpReply(status=429, body=b'{"error": {"message": "x", "code": "rate_limit_exceeded"}}'), (Kind.RATE, "no", None)),
        (b"", HttpReply(status=200, body=b'{"choices": [{"message": {"content": "Lima"}, "finish_reason": "stop"}]}'), ("stop", "Lima", None)),
        (b"", HttpReply(status=200, body=said("Lima 🎈") + chunk(finish="stop") + TAIL, headers={"content-type": "text/plain"}), LI_MA),
    ],
)
def test_how_a_stream_comes_to_its_end(body, came, outcome):
    assert brief(read(CompletionStream(), body, came)) == outcome


def call(index: int | None, **of: Any) -> dict[str, Any]:
    arguments = {key: of.pop(key) for key in ("name", "arguments") if key in of}
    return {**({} if index is None else {"index": index}), **of, "function": arguments}


@pytest.mark.parametrize(
    "fragments",
    [
        [call(0, id="a", name="f", arguments=""), call(0, arguments='{"x"'), call(1, id="b", name="g", arguments="{}"), call(0, arguments=": 1}")],
        # Gemini's compatible endpoint: whole calls, all of index 0, or without any.
        [call(0, id="a", name="f", arguments='{"x": 1}'), call(0, id="b", name="g", arguments="{}")],
        [call(None, id="a", name="f", arguments='{"x": 1}'), call(None, id="b", name="g", arguments="{"), call(None, arguments="}")],
        # The second call begins before the first, and an index is left out.
        [call(3, id="b", name="g", arguments="{"), call(0, id="a", name="f", arguments='{"x": 1}'), call(3, arguments="}")],
        # The id in every fragment, or an empty one.
        [
            call(0, id="a", name="f", arguments='{"x"'),
            call(0, id="a", arguments=": 1"),
            call(0, id="", arguments="}"),
            call(1, id="b", name="g", arguments={}),
        ],
    ],
)
def test_fragments_of_calls(fragments):
    body = b"".join(chunk({"tool_calls": [fragment]}) for fragment in fragments) + chunk(finish="tool_calls")
    outcome = read(CompletionStream(), body)
    assert outcome.finish == "tool"
    assert [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in outcome.tool_calls] == [
        ("a", "f", '{"x": 1}'),
        ("b", "g", "{}"),
    ]


def test_progress_is_a_part_of_the_answer():
    stream = CompletionStream()
    nothing = (b": ping\n\n", b"\n\n", chunk({"role": "assistant", "content": ""}), frame(b"[DONE]"), b"data: {")
    assert [stream.feed(part) for part in nothing] == [False] * 5
    stream = CompletionStream()
    assert [stream.feed(part) for part in (said("x"), chunk({"reasoning": "hm"}), chunk({"tool_calls": [call(0, id="a")]}))] == [True] * 3


# --- responses ---


def event(kind: str, **more: Any) -> bytes:
    return f"event: {kind}\n".encode() + frame({"type": kind, **more})


def response(status: str = "completed", **more: Any) -> dict[str, Any]:
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Lima 🎈"}]}
    usage = {"input_tokens": 12, "output_tokens": 3, "total_tokens": 15}
    return {"id": "resp_1", "status": status, "model": "m-1", "output": [item], "usage": usage, **more}


CREATED = event("response.created", response=response("in_progress", output=[], usage=None))
DELTA = event("response.output_text.delta", delta="Li")


@pytest.mark.parametrize(
    ("body", "came", "outcome"),
    [
        (CREATED + DELTA + event("response.completed", response=response()), END, LI_MA),
        (CREATED + DELTA + event("response.completed", response=response()), CUT, LI_MA),
        (
            event("response.output_item.done", item=response()["output"][0]) + event("response.completed", response=response(output=[])),
            END,
            LI_MA,
        ),
        # Neither a whole response nor its items: the pieces are all there is.
        (
            DELTA + event("response.output_text.delta", delta="ma 🎈") + event("response.completed", response=response(output=[])),
            END,
            LI_MA,
        ),
        (
            DELTA + event("response.incomplete", response=response("incomplete", incomplete_details={"reason": "max_output_tokens"})),
            END,
            ("length", "Lima 🎈", USAGE),
        ),
        (
            DELTA
            + event("response.failed", response=response("failed", output=[], usage=None, error={"code": "rate_limit_exceeded", "message": "x"})),
            END,
            (Kind.RATE, "yes", None),
        ),
        (CREATED + event("error", code="server_error", message="oops"), END, (Kind.SERVER, "maybe", None)),
        (DELTA + frame({"error": {"code": 503, "message": "busy"}}), END, (Kind.OVERLOAD, "yes", None)),
        (CREATED + DELTA, END, (Kind.CUT, "yes", None)),
        (CREATED, END, (Kind.CUT, "maybe", None)),
        (CREATED + DELTA, STALL, (Kind.TIMEOUT, "yes", None)),
        (b"", HttpReply(status=200, body=json.dumps(response()).encode()), LI_MA),
        (b"", HttpReply(status=503, body=b"busy"), (Kind.OVERLOAD, "no", None)),
    ],
)
def test_responses(body, came, outcome):
    assert brief(read(ResponseStream(), body, came)) == outcome


# --- Ollama ---


def line(**data: Any) -> bytes:
    return json.dumps(data, ensure_ascii=False).encode() + b"\n"


LAST = line(message={"content": ""}, done=True, done_reason="stop", prompt_eval_count=12, eval_count=3)


@pytest.mark.parametrize(
    ("body", "came", "outcome"),
    [
        (line(message={"content": "Lima"}) + line(message={"content": " 🎈"}) + LAST, END, LI_MA),
        (line(message={"content": "Lima 🎈"}) + LAST.strip(), END, LI_MA),
        (line(message={"content": "Lima 🎈"}) + LAST, CUT, LI_MA),
        (line(response="Lima 🎈") + line(response="", done=True, done_reason="stop", prompt_eval_count=12, eval_count=3), END, LI_MA),
        (line(message={"content": "Li"}), END, (Kind.CUT, "yes", None)),
        (line(message={"content": "Li"}) + b'{"done": tr', END, (Kind.CUT, "yes", None)),
        (line(message={"content": "Li"}) + line(error="model runner has unexpectedly stopped"), END, (Kind.SERVER, "yes", None)),
        (line(error={"code": 503, "message": "busy"}), END, (Kind.OVERLOAD, "maybe", None)),
        (b"", END, (Kind.CUT, "maybe", None)),
        (line(message={"content": "", "thinking": "hm"}), STALL, (Kind.TIMEOUT, "yes", None)),
        (b"", HttpReply(status=404, body=b'{"error": "model \'x\' not found"}'), (Kind.MODEL_GONE, "no", None)),
    ],
)
def test_ollama(body, came, outcome):
    assert brief(read(OllamaStream(), body, came)) == outcome


@given(st.binary(max_size=300), st.sampled_from([CompletionStream, ResponseStream, OllamaStream]), st.sampled_from([END, CUT]))
def test_no_bytes_raise(body, stream, came):
    assert isinstance(read(stream(), body, came), Fault)


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["choices", "delta", "content", "tool_calls", "function", "index", "id", "error", "usage", "message", "type", "response", "output", "finish_reason", "done"]),
        inner, max_size=4), max_leaves=12),
    st.sampled_from([CompletionStream, ResponseStream, OllamaStream]),
)  # fmt: skip
def test_no_json_raises(data, stream):
    made = json.dumps(data).encode()
    read(stream(), made + b"\n" if stream is OllamaStream else frame(made))
