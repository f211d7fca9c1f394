"""OpenAI's error bodies, word for word where they are known (protocols A.8), and those of gateways and compatible servers in front of it.

Clients must decide by status, code, type and text together; so the table keeps what real servers send, oddities included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Literal

from batchllm.core import json
from batchllm.simulator import gateway
from batchllm.simulator.bucket import Refusal
from batchllm.simulator.dialect import ErrorReply

_JSON = {"content-type": "application/json"}
_PLANS = "For more information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
_LIMIT_PAGE = "Visit https://platform.openai.com/account/rate-limits to learn more."


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    status: int
    message: str = ""
    type: str | None = None
    code: str | int | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Literal["error", "detail"] = "error"


_ROWS: dict[str, _Row] = {
    "500": _Row(status=500, type="server_error", message="The server had an error while processing your request. Sorry about that!"),
    "503": _Row(
        status=503,
        type="service_unavailable_error",
        code="server_is_overloaded",
        message="Our servers are currently overloaded. Please try again later.",
    ),
    "503_retry_after": _Row(
        status=503,
        type="service_unavailable_error",
        code="server_is_overloaded",
        message="Our servers are currently overloaded. Please try again later.",
        headers={"retry-after": "1"},
    ),
    "529": _Row(status=529, type="overloaded_error", message="Overloaded"),
    "498": _Row(status=498, type="tokens", code="capacity_exceeded", message="Flex tier capacity exceeded."),
    "408": _Row(status=408, type="timeout_error", message="Request timed out."),
    "409": _Row(status=409, type="conflict_error", message="The resource is locked by another request. Please try again."),
    "499": _Row(status=499, type="api_error", message="The request was cancelled."),
    "429_retry_after": _Row(
        status=429,
        type="requests",
        code="rate_limit_exceeded",
        message="Rate limit reached for {model}. Please slow down.",
        headers={"retry-after": "1"},
    ),
    "429_retry_after_ms": _Row(
        status=429,
        type="requests",
        code="rate_limit_exceeded",
        message="Rate limit reached for {model}. Please slow down.",
        headers={"retry-after-ms": "250"},
    ),
    "429_date": _Row(status=429, type="requests", code="rate_limit_exceeded", message="Rate limit reached for {model}. Please slow down."),
    "429_text": _Row(
        status=429,
        type="requests",
        code="rate_limit_exceeded",
        message="Rate limit reached for {model} in organization org-simulated on requests per min (RPM): Limit 3000, Used 3000, Requested 1. "
        "Please try again in 350ms. " + _LIMIT_PAGE,
    ),
    "429_bare": _Row(status=429, type="requests", code="rate_limit_exceeded", message="Too many requests."),
    "slow_down": _Row(
        status=429,
        type="rate_limit_error",
        code="slow_down",
        message="Traffic rose too fast. Please reduce your request rate and increase it gradually.",
    ),
    "resource_unavailable": _Row(
        status=429, type="resource_unavailable", code="resource_unavailable", message="Flex processing has no capacity for {model} right now."
    ),
    "402_retry_after": _Row(
        status=402,
        code=402,
        message="In-flight requests exceed your remaining credits. Try again when some have finished.",
        headers={"retry-after": "1"},
    ),
    "error_200": _Row(
        status=200, type="server_error", code="server_error", message="The server had an error while processing your request. Sorry about that!"
    ),
    "401": _Row(
        status=401,
        type="invalid_request_error",
        code="invalid_api_key",
        message="Incorrect API key provided: {key}. You can find your API key at https://platform.openai.com/account/api-keys.",
    ),
    "no_key": _Row(
        status=401,
        type="invalid_request_error",
        message="You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    ),
    "403": _Row(
        status=403, type="invalid_request_error", code="unsupported_country_region_territory", message="Country, region, or territory not supported"
    ),
    "402": _Row(status=402, type="unknown_error", code="invalid_request_error", message="Insufficient Balance"),
    "insufficient_quota": _Row(
        status=429,
        type="insufficient_quota",
        code="insufficient_quota",
        message="You exceeded your current quota, please check your plan and billing details. " + _PLANS,
    ),
    "credit_balance_exhausted": _Row(
        status=429, type="insufficient_quota", code="credit_balance_exhausted", message="Your credit balance is used up. Add credits to go on."
    ),
    "spend_limit": _Row(
        status=429, type="insufficient_quota", code="project_spend_limit_exceeded", message="Your project has reached its monthly spend limit."
    ),
    "usage_limits": _Row(
        status=400,
        type="invalid_request_error",
        message="You have reached your specified API usage limits. You will regain access on 2027-01-01 at 00:00 UTC.",
    ),
    "on_hold": _Row(status=400, type="invalid_request_error", code="organization_on_hold", message="Your organization is on hold."),
    "region": _Row(
        status=403, type="invalid_request_error", code="unsupported_country_region_territory", message="Country, region, or territory not supported"
    ),
    "budget": _Row(status=422, type="budget_exceeded", code="422", message="Budget has been exceeded! Current cost: 10.02, Max budget: 10.0"),
    "rpd": _Row(
        status=429,
        type="requests",
        code="rate_limit_exceeded",
        message="Rate limit reached for {model} in organization org-simulated on requests per day (RPD): Limit 10000, Used 10000, Requested 1. "
        "Please try again in 6h12m0s. " + _LIMIT_PAGE,
        headers={"retry-after": "22320"},
    ),
    "limit_zero": _Row(
        status=429,
        type="requests",
        code="rate_limit_exceeded",
        message="Rate limit reached for {model} on requests per min (RPM): Limit 0, Used 0, Requested 1.",
        headers={"x-ratelimit-limit-requests": "0", "x-ratelimit-remaining-requests": "0"},
    ),
    "oversize": _Row(
        status=429,
        type="tokens",
        code="rate_limit_exceeded",
        message="Request too large for {model} in organization org-simulated on tokens per min (TPM): Limit 30000, Requested 48211. "
        "The input or output tokens must be reduced in order to run successfully. " + _LIMIT_PAGE,
    ),
    "model_not_found": _Row(
        status=404,
        type="invalid_request_error",
        code="model_not_found",
        message="The model `{model}` does not exist or you do not have access to it.",
    ),
    "path_not_found": _Row(status=404, form="detail", message="Not Found"),
    "context_length": _Row(
        status=400,
        type="invalid_request_error",
        code="context_length_exceeded",
        param="messages",
        message="This model's maximum context length is {window} tokens. However, your messages resulted in {tokens} tokens. "
        "Please reduce the length of the messages.",
    ),
    "content_policy": _Row(
        status=400,
        type="invalid_request_error",
        code="content_policy_violation",
        message="Your request was rejected as a result of our safety system.",
    ),
    "invalid_request": _Row(
        status=400, type="invalid_request_error", code="invalid_value", param="messages", message="Invalid value for 'messages'."
    ),
    "unsupported_parameter": _Row(
        status=400,
        type="invalid_request_error",
        code="unsupported_parameter",
        param="max_tokens",
        message="Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ),
    "422": _Row(status=422, form="detail", message="Unprocessable Entity: Unexpected fields in the request."),
    # The simulator's own, for what a client got wrong.
    "unknown_url": _Row(
        status=404, type="invalid_request_error", code="unknown_url", message="Unknown request URL: {method} {path}. Please check the URL for typos."
    ),
    "method": _Row(status=405, type="invalid_request_error", code="method_not_supported", message="Not allowed to {method} on {path}."),
    "client_id": _Row(
        status=400, type="invalid_request_error", code="invalid_value", message="X-Client-Request-Id must be ASCII and at most 512 characters."
    ),
    "marker": _Row(
        status=400,
        type="invalid_request_error",
        code="unknown_fault",
        param="messages",
        message="No fault is called '{marker}'. `batchllm simulate --list-faults` lists them.",
    ),
    "slots": _Row(status=503, type="service_unavailable_error", code="server_is_overloaded", message="All slots are busy. Please try again later."),
}


def reply(name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None) -> ErrorReply:
    """The error called `name`; `details` fill its message (`invalid` has its own message, param and code there)."""
    details = details or {}
    if name == "invalid":
        body = _error_body(details["message"], "invalid_request_error", details["param"], details["code"])
        return ErrorReply(status=400, headers=_JSON, body=body)
    if (page := gateway.reply(name)) is not None:
        return page
    row = _ROWS[name]
    headers = dict(row.headers)
    if name == "429_date":
        # Relative to the Date header, which stands for the provider's own clock.
        headers |= {"date": formatdate(utc, usegmt=True), "retry-after": formatdate(utc + 1, usegmt=True)}
    words = {"model": model or "unknown", "key": "sk-...", "window": 128_000, "tokens": 131_072, "marker": "", "method": "", "path": "", **details}
    message = row.message.format_map(words)
    body = json.dumps({"detail": message}) if row.form == "detail" else _error_body(message, row.type, row.param, row.code)
    return ErrorReply(status=row.status, headers={**_JSON, **headers}, body=body)


def refused(refusal: Refusal, *, model: str, hints: str) -> ErrorReply:
    """The 429 of a bucket. A request that can never pass gets no hint."""
    window = {"minute": "min", "day": "day"}[refusal.window]
    short = "".join(word[0] for word in f"{refusal.dimension} per {window}".replace("_", " ").split()).upper()  # RPM, TPM, ITPM, OTPM, RPD, TPD
    place = f"{model} in organization org-simulated on {refusal.dimension.replace('_', ' ')} per {window} ({short}): Limit {refusal.limit}"
    kind = "requests" if refusal.dimension == "requests" else "tokens"
    headers = dict(_JSON)
    if refusal.wait_seconds is None:
        message = (
            f"Request too large for {place}, Requested {refusal.requested}. The input or output tokens must be reduced in order to run successfully. "
        )
    else:
        milliseconds = max(math.ceil(refusal.wait_seconds * 1000 - 1e-6), 1)
        if hints in ("both", "seconds"):
            headers["retry-after"] = str(max(math.ceil(milliseconds / 1000), 1))
        if hints in ("both", "ms"):
            headers["retry-after-ms"] = str(milliseconds)
        wait = go_duration(milliseconds / 1000)
        message = f"Rate limit reached for {place}, Used {refusal.used}, Requested {refusal.requested}. Please try again in {wait}. "
    return ErrorReply(status=429, headers=headers, body=_error_body(message + _LIMIT_PAGE, kind, None, "rate_limit_exceeded"))


def go_duration(seconds: float) -> str:
    """A duration as Go prints it, in whole milliseconds: `20ms`, `1.4s`, `6m0s`, `1h2m3.5s`; `0s` for nothing."""
    milliseconds = int(seconds * 1000 + 1e-6)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    whole, rest = divmod(milliseconds, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not whole:
        return text
    hours, minutes = divmod(whole, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"


def _error_body(message: str, kind: str | None, param: str | None, code: str | int | None) -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})
