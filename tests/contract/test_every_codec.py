"""One suite over every codec: what it asks, what it reads, whole and streamed, and every row of the retry taxonomy (protocols F) in its own wire's form.

`ROWS` is the table: a row that nothing shows fails a test, and so does a wire that has no form for a row unless `UNSAID` says so. The verbose list of the test's
names is the coverage. The simulator writes the replies (the official SDKs judge it); wire by wire the finer cases are in `test_*_errors` and `test_*_replies`.
"""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from decisions import first
from test_codecs_meet_simulator import WIRES, codec_of, exchanged, met
from yarl import URL

from batchllm.core.json import dumps, loads
from batchllm.core.nouns import Fault, Kind, Reply, Request
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpReply
from batchllm.retry.judge import judge
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.transport.http import _fault

CHAT = [wire for wire in WIRES if wire[1] in ("chat", "responses")]
TEXT = [wire for wire in WIRES if wire[1] != "embeddings"]

ROWS: dict[str, dict[str, str]] = {
    "DNS failure, connect refused, TLS error": {"refuse": "down"},
    "write error, reset before any byte": {"reset": "again"},
    "read timeout, no bytes": {"stall": "again"},
    "stream broken after the first token": {"~reset_mid": "again, billed", "~stall_mid": "again, billed", "~stream_stall_comments": "again, billed"},
    "stream ended without a finish reason": {"~stream_no_finish": "again, billed", "~stream_cut": "again, billed"},
    "408": {"408": "again"},
    "409": {"409": "again"},
    "429 rate": dict.fromkeys(("429_retry_after", "429_retry_after_ms", "429_date", "429_text", "429_bare"), "refused"),
    "429 ramp": {"slow_down": "slower"},
    "429 per day": {"rpd": "window"},
    "429 money": {"insufficient_quota": "out", "credit_balance_exhausted": "out", "spend_limit": "out"},
    "429 limit 0, or smaller than the request": {"limit_zero": "out", "oversize": "fail rate_limited"},
    "402": {"402": "out"},
    "402 with Retry-After": {"402_retry_after": "refused"},
    "budget as 422, 403 or 400": {"budget": "out", "usage_limits": "out", "on_hold": "out"},
    "401, 403": {"401": "out", "403": "out", "region": "out"},
    "404 model": {"model_not_found": "out", "path_not_found": "out"},
    "400 context overflow": {"context_length": "fail too_long"},
    "400 content filter": {"content_policy": "fail refused"},
    "other 400, 413, 422": dict.fromkeys(("invalid_request", "unsupported_parameter", "413", "422"), "fail rejected"),
    "498, 499": {"498": "down", "499": "again"},
    "500, 502": {"500": "again", "502": "down"},
    "503, 529": dict.fromkeys(("503", "503_retry_after", "503_html", "529"), "down"),
    "504, 524": {"504": "again", "524": "again"},
    "3xx, HTML, 200 with invalid JSON": dict.fromkeys(("redirect", "html_200", "empty_200", "half_json"), "again"),
    "200 with an error, finish `error`": {"error_200": "again", "finish_error": "again", "~stream_error": "again, billed"},
    "200 length": {"length": "fail truncated"},
    "200 refusal, safety, no candidates": {"refusal": "fail refused", "content_filter": "fail refused", "prompt_blocked": "fail refused"},
}
"""Row of the table -> fault of the simulator (`~`: of a stream only) -> what the engine does when it comes for the first time."""

OF_THE_ENGINE = {
    "connect timeout": ("tests/contract/test_every_codec.py", "test_no_connection_in_time"),
    "200 schema or JSON invalid": ("tests/engine/test_engine_answers.py", "test_an_answer_that_stays_invalid_fails_the_row"),
    "local: a cap would be passed": ("tests/engine/test_engine_money.py", "test_the_bill_never_passes_the_cap"),
    "local: cancelled": ("tests/engine/test_engine_crash.py", "test_a_cancelled_run_leaves_the_store_resumable"),
}
"""Rows that no wire has a word in, and who shows them."""

_PLAIN_TEXT = "this wire has words only, no codes: what they would say is told by the limits that are declared, or by asking again"
_NO_REFUSAL = "a refusal is text like any other on this wire"
OTHERWISE: dict[tuple[str, str], tuple[str, str]] = {
    ("anthropic chat", "~stream_error"): ("down, billed", "the event's own words: overloaded"),
    ("anthropic chat", "~stream_stall_comments"): ("again", "nothing but `message_start` came: possibly billed"),
    ("anthropic chat", "oversize"): ("refused", "no numbers in a form to rely on: told by the declared limits"),
    ("gemini", "oversize"): ("fail too_long", "told as a prompt that is too long"),
    ("gemini", "slow_down"): ("refused", "no code of its own for it"),
    **{("ollama", name): ("refused", _PLAIN_TEXT) for name in ("slow_down", "credit_balance_exhausted", "spend_limit")},
    ("ollama", "on_hold"): ("fail rejected", _PLAIN_TEXT),
    **{(wire, "refusal"): ("ok", _NO_REFUSAL) for wire in ("openai completions", "ollama chat", "ollama completions")},
}
"""(wire or provider, fault) -> what comes of it there, and why."""

UNSAID: dict[str, set[str]] = {
    "402 with Retry-After": {"anthropic chat", "gemini chat", "gemini embeddings"},
    "200 length": {"openai embeddings", "gemini embeddings", "ollama embeddings"},
    "200 refusal, safety, no candidates": {"openai embeddings", "gemini embeddings", "ollama embeddings"},
}
"""Row -> wires that have no form for it."""


def cases():
    return [
        pytest.param(row, wire, name, decision, id=f"{row} - {' '.join(wire)} - {name}")
        for row, faults in ROWS.items()
        for name, decision in faults.items()
        for wire in (TEXT if name.startswith("~") else WIRES)
    ]


def outcome_of(wire, name):
    """What the engine does about it, in a word; None where this wire knows no such fault."""
    stream = name.startswith("~")
    wrong, _, record = met(*wire, name.lstrip("~"), stream)
    if record.fault is None:
        return None
    verdict = judge(wrong, on_length="fail") if isinstance(wrong, Reply) else wrong
    if verdict is None:
        return "ok"
    if isinstance(verdict, Fault):
        return first(verdict) + (", billed" if stream and verdict.billed == "yes" else "")
    return f"fail {verdict.code}"


@pytest.mark.parametrize(("row", "wire", "name", "decision"), cases())
def test_row_of_the_taxonomy(row, wire, name, decision):
    found = outcome_of(wire, name)
    if found is None:
        assert " ".join(wire) in UNSAID.get(row, ()) or len(ROWS[row]) > 1
        return
    decision, _ = OTHERWISE.get((" ".join(wire), name)) or OTHERWISE.get((wire[0], name)) or (decision, "")
    assert found == decision


def test_no_row_and_no_wire_is_missing():
    missing = {
        row: wires
        for row, faults in ROWS.items()
        if (wires := {" ".join(wire) for wire in WIRES if all(outcome_of(wire, name) is None for name in faults if wire in TEXT or name[0] != "~")})
    }
    of_streams = {row for row, faults in ROWS.items() if all(name.startswith("~") for name in faults)}
    assert missing == UNSAID | {row: {" ".join(wire) for wire in WIRES if wire not in TEXT} for row in of_streams}


def test_rows_without_a_wire_are_shown_elsewhere():
    root = Path(__file__).parents[2]
    assert [row for row, (file, test) in OF_THE_ENGINE.items() if f"def {test}" not in (root / file).read_text()] == []


def test_no_connection_in_time():
    fault = _fault(aiohttp.ConnectionTimeoutError(), URL("http://h/v1"), 60)
    assert (first(fault), fault.billed, fault.counts) == ("down", "no", False)


# What all of them ask and read alike.


def played(wire, messages="Tell me about lakes and rivers", params=None, *, stream=False, body=None, **settings):
    """(what the codec made of it, what it had written)."""
    if isinstance(messages, str):
        messages = ({"role": "user", "content": messages},)
    given = {} if wire[1] == "embeddings" else {"max_tokens": 60}
    request = Request(endpoint=wire[1], messages=messages, params={**given, **(params or {})}, body=body or {})
    codec = codec_of(*wire)

    async def main():
        transport = SimulatedTransport(Simulator(Settings(latency_ms=5, **settings)), VirtualClock())
        return await exchanged(codec, transport, request, stream)

    encoded = codec.encode(request, client_request_id="job.1.1", stream=stream)
    return run_virtual(main), loads(encoded.body)


def wires(chosen, *, streams=True):
    return pytest.mark.parametrize(
        ("wire", "stream"),
        [
            pytest.param(wire, stream, id=f"{' '.join(wire)}{' stream' * stream}")
            for wire in chosen
            for stream in ([False, True] if streams else [False])
        ],
    )


@wires(TEXT)
def test_an_answer_has_all_that_is_kept_of_it(wire, stream):
    reply, _ = played(wire, stream=stream)
    assert isinstance(reply, Reply)
    assert (reply.finish, reply.refusal, reply.tool_calls) == ("stop", None, ())
    assert reply.text
    assert reply.provider_model
    assert reply.usage.input_tokens > 5
    assert reply.usage.output_tokens > 0
    assert reply.request_id or wire[0] == "ollama"


@pytest.mark.parametrize("wire", TEXT, ids=" ".join)
def test_a_stream_is_the_same_answer(wire):
    whole, streamed = (played(wire, stream=stream)[0] for stream in (False, True))
    assert (streamed.text, streamed.usage, streamed.finish, streamed.provider_model) == (whole.text, whole.usage, whole.finish, whole.provider_model)


@wires(TEXT)
def test_caps_and_stop_sequences_are_kept(wire, stream):
    reply, body = played(wire, stream=stream)
    assert b":60" in dumps(body), "whatever it is called"
    assert reply.usage.output_tokens <= 60
    if wire[1] == "responses":
        return  # has no `stop`: the codec says so
    reply, _ = played(wire, params={"stop": ["e"]}, stream=stream)
    assert (reply.finish, "e" in reply.text) == ("stop", False)


TOOL = {
    "type": "function",
    "function": {"name": "lookup", "parameters": {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}},
}


@wires(CHAT)
def test_tools_come_back_in_one_form_and_their_results_are_taken(wire, stream):
    # Ollama can't be told to call one; the simulator does when its name is said.
    asked = ({"role": "user", "content": "Use lookup, please"},)
    choice = {} if wire[0] == "ollama" else {"tool_choice": "required"}
    reply, _ = played(wire, asked, {"tools": [TOOL], **choice}, stream=stream)
    assert reply.finish == "tool"
    (call,) = reply.tool_calls
    assert call["type"] == "function"
    assert call["id"]
    assert call["function"]["name"] == "lookup"
    assert isinstance(loads(call["function"]["arguments"])["q"], str)
    turns = (
        *asked,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": dumps({"depth": 3}).decode()},
    )
    reply, _ = played(wire, turns, {"tools": [TOOL]}, stream=stream)
    assert (reply.finish, bool(reply.text)) == ("stop", True)


SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["spam", "ham"]}, "stars": {"type": "integer"}},
    "required": ["label", "stars"],
    "additionalProperties": False,
}


@wires(CHAT)
def test_a_schema_is_followed(wire, stream):
    form = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": SCHEMA}}
    reply, _ = played(wire, params={"response_format": form, "max_tokens": 200}, stream=stream)
    value = loads(reply.text)
    assert value["label"] in ("spam", "ham")
    assert isinstance(value["stars"], int)


@pytest.mark.parametrize("wire", WIRES, ids=" ".join)
def test_raw_parts_of_the_spec_are_in_the_body_and_no_stream_is_asked_for(wire):
    _, body = played(wire, body={"x_mine": {"a": 1}})
    assert "x_mine" in dumps(body).decode()
    assert body.get("stream") in (None, False)


@pytest.mark.parametrize("wire", WIRES, ids=" ".join)
def test_a_wrong_key_is_told(wire):
    fault, _ = played(wire, keys=frozenset({"right"}))
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.billed) == (Kind.AUTH, "no")


@pytest.mark.parametrize("wire", WIRES, ids=" ".join)
@pytest.mark.parametrize("status", [200, 400, 429, 503])
def test_no_bytes_are_taken_for_an_answer(wire, status):
    codec = codec_of(*wire)
    for body in (b"", b"null", b"[]", b"{}", b"\xff\xfe", b"<html><title>502</title>", b'{"error": null}', b'{"choices": []}', b"[{}]", b'"text"'):
        assert isinstance(codec.decode(HttpReply(status=status, body=body, headers={})), Fault), body
