"""Error replies on Anthropic's wire as literals, with the decision that follows; `ROWS` names each row of the tables, and a row without a case fails a test."""

from __future__ import annotations

import json

import pytest
from decisions import first
from openai_error_cases import HTML, VERDICTS, nginx

from batchllm.core.nouns import Fault, Kind, Reply
from batchllm.core.wire import HttpReply
from batchllm.providers.anthropic import AnthropicMessages
from batchllm.retry.judge import judge

CODEC = AnthropicMessages(base_url="https://api.anthropic.com", model="claude-haiku-5-5", api_key=None, headers={})

ROWS = {
    "400", "400 spend limit", "400 on hold", "400 context", "401", "402", "403", "404", "409", "413", "429 rate", "429 ramp", "429 money", "429 never", "499", "500", "502", "503", "504", "529", "protocol", "error in 200", "200 length", "200 refusal",
}  # fmt: skip
"""The rows of B.8, and those of F that a complete reply on this wire can be."""


def err(kind: str, message: str = "x", **more: object) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message, **more}, "request_id": "req_01"}).encode()


def code(word: str) -> dict[str, object]:
    return {"details": {"error_code": word}}


LIMITS = "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC."
# fmt: off
CASES = [
    ("400", 400, {}, err("invalid_request_error", "messages: at least one message is required"), "bad request", None),
    ("400", 400, {}, err("invalid_request_error", "`temperature` is not supported by this model"), "bad request", None),
    ("400 spend limit", 400, {}, err("invalid_request_error", LIMITS), "money", None),
    ("400 spend limit", 400, {}, err("invalid_request_error", LIMITS.replace("specified", "workspace")), "money", None),
    ("400 spend limit", 400, {}, err("invalid_request_error", "Your credit balance is too low to access the Anthropic API."), "money", None),
    ("400 on hold", 400, {}, err("invalid_request_error", **code("organization_on_hold")), "money", None),
    ("400 context", 400, {}, err("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"), "context", None),
    ("400 context", 400, {}, err("invalid_request_error", "input length and `max_tokens` exceed context limit: 190000 + 64000 > 200000"), "context", None),
    ("400 context", 400, {}, b'{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}', "context", None),
    ("401", 401, {}, err("authentication_error", "invalid x-api-key"), "auth", None),
    ("402", 402, {}, err("billing_error"), "money", None),
    ("403", 403, {}, err("permission_error", "Your API key does not have permission to use the specified resource."), "auth", None),
    ("403", 403, {}, err("permission_error", "You have no access to this model."), "model gone", None),
    ("404", 404, {}, err("not_found_error", "model: claude-haiku-9"), "model gone", None),
    ("404", 404, {}, b'{"detail":"Not Found"}', "model gone", None),
    ("409", 409, {}, err("conflict_error"), "conflict, billed no", None),
    ("413", 413, {}, err("request_too_large", "Request exceeds the maximum size"), "bad request", None),
    ("413", 413, HTML, nginx("413 Request Entity Too Large"), "bad request", None),
    ("429 rate", 429, {"retry-after": "7"}, err("rate_limit_error", "This request would exceed your organization's rate limit of 30,000 input tokens per minute."), "rate", 7),
    ("429 rate", 429, {"retry-after": "0"}, err("rate_limit_error"), "rate", None),
    ("429 never", 429, {}, err("rate_limit_error", "This request would exceed your organization's rate limit of 0 requests per minute."), "model gone", None),
    ("429 rate", 429, {}, err("rate_limit_error", "This request would exceed your rate limit of 0.5 requests per second."), "rate", None),
    ("429 ramp", 429, {"retry-after": "12"}, err("rate_limit_error", **code("ramp_limit_exceeded")), "ramp", 12),
    ("429 ramp", 429, {"retry-after": "12"}, err("ramp_limit_exceeded"), "ramp", 12),
    ("429 money", 429, {}, err("rate_limit_error", **code("enforced_spend_limit_reached")), "money", None),
    ("429 money", 429, {}, err("rate_limit_error", **code("contract_spend_limit_reached")), "money", None),
    ("429 money", 429, {"retry-after": "9"}, err("enforced_spend_limit_reached"), "money", None),
    ("499", 499, {}, err("api_error"), "conflict, billed no", None),
    ("500", 500, {}, err("api_error", "Internal server error"), "server", None),
    ("502", 502, HTML, nginx("502 Bad Gateway"), "bad gateway", None),
    ("503", 503, {}, err("api_error", "the key service is unreachable"), "overload, counted", None),
    ("504", 504, {}, err("timeout_error"), "gateway timeout", None),
    ("529", 529, {}, err("overloaded_error", "Overloaded"), "overload, counted", None),
    ("529", 529, {"retry-after": "3"}, b"", "overload, counted", 3),
    ("protocol", 200, HTML, b"<html><title>Sign in</title>", "protocol", None),
    ("protocol", 200, {}, b"", "protocol", None),
    ("protocol", 200, {}, b'{"id":"msg_1","type":"message","content":"x"}', "protocol", None),
    ("protocol", 200, {}, b'{"id":"msg_1","usage":{"input_tokens":3,"output_tokens":1}}', "protocol, billed yes", None),
    ("error in 200", 200, {}, err("overloaded_error"), "overload, billed maybe", None),
    ("error in 200", 200, {}, err("api_error"), "server", None),
    ("error in 200", 200, {}, err("rate_limit_error"), "rate, billed maybe", None),
    ("error in 200", 200, {}, err("invalid_request_error"), "bad request, billed maybe", None),
]
# fmt: on


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[3][:60]!r}")
def test_error_becomes_fault_and_decision(case):
    _, status, headers, body, verdict, wait = case
    fault = CODEC.decode(HttpReply(status=status, headers=headers, body=body))
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.billed, fault.counts, first(fault)) == VERDICTS[verdict]
    assert (fault.http_status, fault.wait_seconds) == (status, wait)
    assert fault.message


ANSWERS = [
    ("200 length", {"stop_reason": "max_tokens", "content": [{"type": "text", "text": "Li"}]}, None),
    ("200 length", {"stop_reason": "max_tokens", "content": []}, "truncated"),
    ("200 length", {"stop_reason": "model_context_window_exceeded", "content": []}, "truncated"),
    ("200 refusal", {"stop_reason": "refusal", "content": []}, "refused"),
    ("200 refusal", {"stop_reason": "refusal", "content": [{"type": "text", "text": "I"}], "stop_details": {"type": "refusal"}}, "refused"),
]


@pytest.mark.parametrize(("row", "message", "error"), ANSWERS)
def test_answer_that_is_none(row, message, error):
    reply = CODEC.decode(HttpReply(status=200, body=json.dumps(message).encode()))
    assert isinstance(reply, Reply)
    judged = judge(reply, on_length="ok")
    assert (judged.code if judged is not None else None) == error


def test_every_row_has_a_case():
    assert {row for row, *_ in CASES} | {row for row, *_ in ANSWERS} == ROWS


def test_the_request_id_is_found_in_header_and_body():
    both = CODEC.decode(HttpReply(status=529, headers={"request-id": "req_9"}, body=err("overloaded_error")))
    assert (both.kind, both.request_id) == (Kind.OVERLOAD, "req_9")
    for status in (529, 200):
        assert CODEC.decode(HttpReply(status=status, body=err("overloaded_error"))).request_id == "req_01"
    assert CODEC.decode(HttpReply(status=200, headers={"request-id": "req_9"}, body=err("overloaded_error"))).request_id == "req_9"
