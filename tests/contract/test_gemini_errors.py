"""Error replies on Gemini's wire as literals, with the decision that follows; `ROWS` names each row of the tables, and a row without a case fails a test."""

from __future__ import annotations

import json

import pytest
from decisions import first
from openai_error_cases import HTML, VERDICTS, nginx

from batchllm.core.nouns import Fault, Kind, Reply
from batchllm.core.wire import HttpReply
from batchllm.providers.gemini import GeminiGenerate
from batchllm.retry.judge import judge

CODEC = GeminiGenerate(base_url="https://generativelanguage.googleapis.com", model="gemini-3.8-flash", api_key=None, headers={})

ROWS = {
    "400", "400 key", "400 precondition", "400 context", "401", "402", "403", "404", "413", "429 minute", "429 day", "429 never", "429 bare",
    "499", "500", "502", "503", "504", "protocol", "error in 200", "model error", "account", "200 length", "200 blocked", "200 filtered",
}  # fmt: skip
"""The rows of C.5 and of C.2's finish reasons, and those of F that a complete reply on this wire can be."""

QUOTA = "You exceeded your current quota, please check your plan and billing details."


def err(status: int, word: str, message: str = "x", details: list[object] | None = None) -> dict[str, object]:
    return {"error": {"code": status, "message": message, "status": word, **({"details": details} if details else {})}}


def quota(quota_id: str, delay: str = "26s", value: str = "250000") -> dict[str, object]:
    return err(
        429,
        "RESOURCE_EXHAUSTED",
        QUOTA,
        [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id, "quotaValue": value}]},
            {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
        ],
    )


def candidate(reason: str | None, *parts: object, **more: object) -> dict[str, object]:
    made = {"index": 0, **({"finishReason": reason} if reason else {}), **({"content": {"role": "model", "parts": list(parts)}} if parts else {})}
    return {"candidates": [{**made, **more}]}


BAD_KEY = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]
TOO_LONG = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
REASONS = [
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
    "OTHER",
    "NO_IMAGE",
]
# fmt: off
CASES = [
    ("400", 400, err(400, "INVALID_ARGUMENT", "Invalid value at 'generation_config.temperature'"), "bad request", None),
    ("400", 400, [err(400, "INVALID_ARGUMENT", "wrapped in a list")], "bad request", None),
    ("400 key", 400, err(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", BAD_KEY), "auth", None),
    ("400 key", 400, [err(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", BAD_KEY)], "auth", None),
    ("400 precondition", 400, err(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), "auth", None),
    ("400 context", 400, err(400, "INVALID_ARGUMENT", TOO_LONG), "context", None),
    ("401", 401, err(401, "UNAUTHENTICATED", "Request had invalid authentication credentials."), "auth", None),
    ("402", 402, err(402, "RESOURCE_EXHAUSTED", "Your prepaid credits are used up."), "money", None),
    ("403", 403, err(403, "PERMISSION_DENIED", "The caller does not have permission"), "auth", None),
    ("404", 404, err(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta"), "model gone", None),
    ("413", 413, "html 413 Request Entity Too Large", "bad request", None),
    ("429 minute", 429, quota("GenerateContentInputTokensPerModelPerMinute-PaidTier"), "rate", 26),
    ("429 minute", 429, [quota("GenerateRequestsPerMinutePerProjectPerModel", "1.5s")], "rate", 1.5),
    ("429 day", 429, quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "11s", "250"), "day", None),
    ("429 never", 429, quota("GenerateRequestsPerMinutePerProjectPerModel", "11s", "0"), "model gone", None),
    ("429 bare", 429, err(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."), "rate", None),
    ("499", 499, err(499, "CANCELLED"), "conflict, billed no", None),
    ("500", 500, err(500, "INTERNAL", "An internal error has occurred."), "server", None),
    ("502", 502, "html 502 Bad Gateway", "bad gateway", None),
    ("503", 503, err(503, "UNAVAILABLE", "The model is overloaded. Please try again later."), "overload, counted", None),
    ("504", 504, err(504, "DEADLINE_EXCEEDED"), "gateway timeout", None),
    ("protocol", 200, "html Sign in", "protocol", None),
    ("protocol", 200, {}, "protocol", None),
    ("protocol", 200, [], "protocol", None),
    ("error in 200", 200, err(503, "UNAVAILABLE"), "overload, billed maybe", None),
    ("error in 200", 200, [err(429, "RESOURCE_EXHAUSTED")], "rate, billed maybe", None),
    ("error in 200", 200, {**err(500, "INTERNAL"), "usageMetadata": {"promptTokenCount": 5}}, "server, billed yes", None),
    *(("model error", 200, candidate(reason), "cut", None) for reason in REASONS),
]
# fmt: on


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {str(case[2])[:70]}")
def test_error_becomes_fault_and_decision(case):
    _, status, body, verdict, wait = case
    html = isinstance(body, str)
    raw = nginx(body.removeprefix("html ")) if html else json.dumps(body).encode()
    fault = CODEC.decode(HttpReply(status=status, headers=HTML if html else {}, body=raw))
    assert isinstance(fault, Fault)
    assert (fault.kind, fault.billed, fault.counts, first(fault)) == VERDICTS[verdict]
    assert (fault.http_status, fault.wait_seconds) == (status, wait)
    assert fault.message


def test_a_limited_account_is_out():
    fault = CODEC.decode(HttpReply(status=200, body=json.dumps(candidate("PUP_LIMITED_DISABLED", finishMessage="limited")).encode()))
    assert (fault.kind, first(fault), fault.message) == (Kind.AUTH, "out", "limited")


FILTERED = ["SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MODEL_ARMOR", "ESCALATION", "LANGUAGE", "IMAGE_SAFETY", "IMAGE_OTHER"]
ANSWERS = [
    ("200 length", candidate("MAX_TOKENS", {"text": "Li"}), None),
    ("200 length", candidate("MAX_TOKENS"), "truncated"),
    ("200 length", candidate("CONTINUATION", {"text": "Li"}, continuationToken="x"), None),
    ("200 blocked", {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9, "totalTokenCount": 9}}, "refused"),
    ("200 blocked", {"promptFeedback": {"blockReason": "OTHER", "blockReasonMessage": "no"}, "candidates": []}, "refused"),
    ("200 blocked", {"usageMetadata": {"promptTokenCount": 9}}, "refused"),
    *(("200 filtered", candidate(reason), "refused") for reason in FILTERED),
]


@pytest.mark.parametrize(("row", "body", "error"), ANSWERS)
def test_answer_that_is_none(row, body, error):
    reply = CODEC.decode(HttpReply(status=200, body=json.dumps(body).encode()))
    assert isinstance(reply, Reply)
    judged = judge(reply, on_length="ok")
    assert (judged.code if judged is not None else None) == error


def test_every_row_has_a_case():
    assert {row for row, *_ in CASES} | {row for row, *_ in ANSWERS} | {"account"} == ROWS
