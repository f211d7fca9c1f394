"""Gemini's errors (protocols C.5): `{"error": {"code", "message", "status", "details": [...]}}`, with the wait and the quota's name among the details.

Two traps: a wrong key is a 400 that only `reason: API_KEY_INVALID` tells from a bad request, and a quota of the day carries a short `retryDelay` like one of the minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchllm.core import json
from batchllm.simulator import gateway
from batchllm.simulator.bucket import Refusal
from batchllm.simulator.dialect import ErrorReply

_JSON = {"content-type": "application/json; charset=UTF-8"}
_RPC = "type.googleapis.com/google.rpc."
_METRIC = "generativelanguage.googleapis.com/generate_content_paid_tier_"
_OVER = "You exceeded your current quota, please check your plan and billing details."
_METRICS = {"requests": "requests", "tokens": "input_token_count", "input_tokens": "input_token_count", "output_tokens": "output_token_count"}
_QUOTAS = {"requests": "Requests", "tokens": "InputTokens", "input_tokens": "InputTokens", "output_tokens": "OutputTokens"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    code: int
    status: str
    message: str
    reason: str | None = None
    """Of an ErrorInfo."""
    quota: tuple[str, str, int] | None = None
    """Dimension, window and value of a QuotaFailure."""
    delay: str | None = None
    """Of a RetryInfo."""
    http: int | None = None
    """The status line, where it isn't the code."""


_ROWS: dict[str, _Row] = {
    "500": _Row(code=500, status="INTERNAL", message="An internal error has occurred. Please retry or report in the developer forum."),
    "503": _Row(code=503, status="UNAVAILABLE", message="The model is overloaded. Please try again later."),
    "503_retry_after": _Row(code=503, status="UNAVAILABLE", message="The model is overloaded. Please try again later.", delay="1s"),
    "504": _Row(code=504, status="DEADLINE_EXCEEDED", message="Deadline expired before operation could complete."),
    "529": _Row(code=503, status="UNAVAILABLE", message="The model is overloaded. Please try again later."),
    "498": _Row(code=503, status="UNAVAILABLE", message="No flex capacity for {model} right now."),
    "408": _Row(code=408, status="DEADLINE_EXCEEDED", message="The request's body took too long."),
    "409": _Row(code=409, status="ABORTED", message="The operation was aborted."),
    "499": _Row(code=499, status="CANCELLED", message="The operation was cancelled."),
    "429_retry_after": _Row(code=429, status="RESOURCE_EXHAUSTED", message=_OVER, quota=("requests", "minute", 1000), delay="1s"),
    "429_retry_after_ms": _Row(code=429, status="RESOURCE_EXHAUSTED", message=_OVER, quota=("requests", "minute", 1000), delay="0.25s"),
    "429_date": _Row(code=429, status="RESOURCE_EXHAUSTED", message=_OVER, quota=("tokens", "minute", 250_000), delay="1.5s"),
    "429_text": _Row(code=429, status="RESOURCE_EXHAUSTED", message=_OVER + " Please retry in 0.35s.", quota=("requests", "minute", 1000)),
    "429_bare": _Row(code=429, status="RESOURCE_EXHAUSTED", message="Resource has been exhausted (e.g. check quota)."),
    "slow_down": _Row(code=429, status="RESOURCE_EXHAUSTED", message="Traffic rose too fast. Please raise it gradually.", delay="2s"),
    "resource_unavailable": _Row(code=503, status="UNAVAILABLE", message="No flex capacity for {model} right now."),
    "error_200": _Row(code=500, status="INTERNAL", message="An internal error has occurred.", http=200),
    "401": _Row(code=400, status="INVALID_ARGUMENT", message="API key not valid. Please pass a valid API key.", reason="API_KEY_INVALID"),
    "no_key": _Row(
        code=403,
        status="PERMISSION_DENIED",
        message="Method doesn't allow unregistered callers. Please use API Key or other form of API consumer identity.",
    ),
    "403": _Row(code=403, status="PERMISSION_DENIED", message="The caller does not have permission to use {model}."),
    "402": _Row(code=402, status="RESOURCE_EXHAUSTED", message="Your prepaid credits are used up."),
    "insufficient_quota": _Row(code=402, status="RESOURCE_EXHAUSTED", message="Your prepaid credits are used up."),
    "credit_balance_exhausted": _Row(code=402, status="RESOURCE_EXHAUSTED", message="Your prepaid credits are used up."),
    "spend_limit": _Row(code=402, status="RESOURCE_EXHAUSTED", message="Your project has reached its monthly spend cap."),
    "usage_limits": _Row(code=402, status="RESOURCE_EXHAUSTED", message="Your billing account has reached its spend cap."),
    "on_hold": _Row(code=403, status="PERMISSION_DENIED", message="Your project has been suspended.", reason="CONSUMER_SUSPENDED"),
    "region": _Row(code=400, status="FAILED_PRECONDITION", message="User location is not supported for the API use."),
    "budget": _Row(code=402, status="RESOURCE_EXHAUSTED", message="Your project's budget is used up."),
    "rpd": _Row(code=429, status="RESOURCE_EXHAUSTED", message=_OVER + " Please retry in 12s.", quota=("requests", "day", 10_000), delay="12s"),
    "limit_zero": _Row(code=429, status="RESOURCE_EXHAUSTED", message=_OVER + " Limit: 0, model: {model}", quota=("requests", "day", 0)),
    "oversize": _Row(
        code=400, status="INVALID_ARGUMENT", message="The input token count (48211) exceeds the maximum number of tokens allowed (30000)."
    ),
    "model_not_found": _Row(
        code=404, status="NOT_FOUND", message="models/{model} is not found for API version v1beta, or is not supported for generateContent."
    ),
    "path_not_found": _Row(code=404, status="NOT_FOUND", message="Requested entity was not found."),
    "context_length": _Row(
        code=400, status="INVALID_ARGUMENT", message="The input token count ({tokens}) exceeds the maximum number of tokens allowed ({window})."
    ),
    "content_policy": _Row(code=400, status="INVALID_ARGUMENT", message="The request was blocked by the safety policy."),
    "invalid_request": _Row(code=400, status="INVALID_ARGUMENT", message="* GenerateContentRequest.contents: contents is not specified"),
    "unsupported_parameter": _Row(code=400, status="INVALID_ARGUMENT", message="Penalty is not enabled for models/{model}"),
    "422": _Row(code=422, status="INVALID_ARGUMENT", message="Unprocessable request."),
    "unknown_url": _Row(code=404, status="NOT_FOUND", message="Not found: {method} {path}"),
    "method": _Row(code=405, status="INVALID_ARGUMENT", message="Method not allowed: {method} {path}"),
    "client_id": _Row(code=400, status="INVALID_ARGUMENT", message="x-client-request-id: must be ASCII and at most 512 characters"),
    "marker": _Row(code=400, status="INVALID_ARGUMENT", message="No fault is called '{marker}'. `batchllm simulate --list-faults` lists them."),
    "slots": _Row(code=503, status="UNAVAILABLE", message="The model is overloaded. Please try again later."),
    # The simulator's own, for what a client got wrong.
    "invalid": _Row(code=400, status="INVALID_ARGUMENT", message="{message}"),
}


def reply(name: str, *, model: str | None, details: Mapping[str, Any] | None) -> ErrorReply:
    """The error called `name`; `details` fill its message."""
    row = _ROWS.get(name)
    if row is None:
        page = gateway.reply(name)
        if page is None:
            raise KeyError(name)
        return page
    words = {"model": model or "unknown", "window": 1_048_576, "tokens": 1_100_000, **(details or {})}
    parts: list[dict[str, Any]] = []
    if row.reason is not None:
        parts.append({"@type": _RPC + "ErrorInfo", "reason": row.reason, "domain": "googleapis.com", "metadata": {}})
    if row.quota is not None:
        parts += _quota(*row.quota, model=model)
    if row.delay is not None:
        parts.append({"@type": _RPC + "RetryInfo", "retryDelay": row.delay})
    return ErrorReply(status=row.http or row.code, headers=_JSON, body=_body(row.code, row.message.format_map(words), row.status, parts))


def refused(refusal: Refusal, *, model: str, hints: str) -> ErrorReply:
    """The 429 of a bucket. A request that can never pass is told that it is too long."""
    if refusal.wait_seconds is None:
        message = f"The input token count ({refusal.requested}) exceeds the maximum number of tokens allowed ({refusal.limit})."
        return ErrorReply(status=400, headers=_JSON, body=_body(400, message, "INVALID_ARGUMENT", []))
    # Even a quota of the day comes with a delay of seconds: it is the quota's name that tells.
    delay = refusal.wait_seconds if refusal.window == "minute" else min(refusal.wait_seconds, 60.0)
    text = f"{max(delay, 0.001):.9f}".rstrip("0").rstrip(".") + "s"
    parts = _quota(refusal.dimension, refusal.window, refusal.limit, model=model)
    message = _OVER
    if hints != "none":
        message += f" Please retry in {text}."
        parts.append({"@type": _RPC + "RetryInfo", "retryDelay": text})
    return ErrorReply(status=429, headers=_JSON, body=_body(429, message, "RESOURCE_EXHAUSTED", parts))


def stream_end(name: str) -> bytes:
    """An error in a stream that has begun: bare JSON over several lines, without `data:`."""
    row = _ROWS[name]
    error = json.dumps({"code": row.code, "message": row.message, "status": row.status}).replace(b",", b",\n    ")
    return b'{\n  "error": ' + error + b"\n}\n"


def _quota(dimension: str, window: str, value: int, *, model: str | None) -> list[dict[str, Any]]:
    per = {"minute": "PerMinute", "day": "PerDay"}[window]
    violation = {
        "quotaMetric": _METRIC + _METRICS[dimension],
        "quotaId": f"GenerateContent{_QUOTAS[dimension]}PerModel{per}-PaidTier",
        "quotaDimensions": {"model": model or "unknown", "location": "global"},
        "quotaValue": str(value),
    }
    return [{"@type": _RPC + "QuotaFailure", "violations": [violation]}, {"@type": _RPC + "Help", "links": []}]


def _body(code: int, message: str, status: str, details: list[dict[str, Any]]) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    if details:
        error["details"] = details
    return json.dumps({"error": error})
