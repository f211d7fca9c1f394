"""Anthropic's errors (protocols B.8): `{"type": "error", "error": {"type", "message", "details"?}, "request_id"}`.

The trap is money: a spend limit is a 429 like any other but for `details.error_code` and the missing `retry-after`, and the account's own limit is a plain 400 whose
text alone tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

from batchllm.core import json
from batchllm.simulator import gateway
from batchllm.simulator.bucket import Refusal
from batchllm.simulator.dialect import ErrorReply

_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    status: int
    type: str
    message: str
    error_code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


_LIMIT = "This request would exceed your organization's rate limit. Please reduce the prompt length or try again later."

_ROWS: dict[str, _Row] = {
    "500": _Row(status=500, type="api_error", message="Internal server error"),
    "503": _Row(status=503, type="api_error", message="The key service can't be reached."),
    "503_retry_after": _Row(status=503, type="api_error", message="The key service can't be reached.", headers={"retry-after": "1"}),
    "504": _Row(status=504, type="timeout_error", message="The request timed out. Streaming is advised for long requests."),
    "529": _Row(status=529, type="overloaded_error", message="Overloaded"),
    "498": _Row(status=529, type="overloaded_error", message="Overloaded"),
    "408": _Row(status=408, type="timeout_error", message="The request's body took too long."),
    "409": _Row(status=409, type="conflict_error", message="The resource is being changed by another request."),
    "499": _Row(status=499, type="api_error", message="The request was cancelled."),
    "429_retry_after": _Row(status=429, type="rate_limit_error", message=_LIMIT, headers={"retry-after": "1"}),
    "429_retry_after_ms": _Row(status=429, type="rate_limit_error", message=_LIMIT, headers={"retry-after-ms": "250"}),
    "429_date": _Row(status=429, type="rate_limit_error", message=_LIMIT),
    "429_text": _Row(status=429, type="rate_limit_error", message=_LIMIT + " Please try again in 350ms."),
    "429_bare": _Row(status=429, type="rate_limit_error", message=_LIMIT),
    "slow_down": _Row(
        status=429,
        type="rate_limit_error",
        error_code="ramp_limit_exceeded",
        message="Your traffic rose too fast. Please raise it gradually.",
        headers={"retry-after": "2"},
    ),
    "resource_unavailable": _Row(status=529, type="overloaded_error", message="No fast capacity for {model} right now."),
    "402_retry_after": _Row(
        status=402, type="billing_error", message="Requests in flight exceed your remaining credits.", headers={"retry-after": "1"}
    ),
    "error_200": _Row(status=200, type="api_error", message="Internal server error"),
    "401": _Row(status=401, type="authentication_error", message="invalid x-api-key"),
    "no_key": _Row(status=401, type="authentication_error", message="x-api-key or Authorization header is required"),
    "403": _Row(status=403, type="permission_error", message="Your API key does not have permission to use {model}."),
    "402": _Row(status=402, type="billing_error", message="Your credit balance is too low to access the API."),
    "insufficient_quota": _Row(status=402, type="billing_error", message="Your credit balance is too low to access the API."),
    "credit_balance_exhausted": _Row(status=402, type="billing_error", message="Your prepaid credits are used up."),
    "spend_limit": _Row(
        status=429,
        type="rate_limit_error",
        error_code="enforced_spend_limit_reached",
        message="Your organization has reached its spend limit. Access returns on the first of next month at 00:00 UTC.",
    ),
    "usage_limits": _Row(
        status=400,
        type="invalid_request_error",
        message="You have reached your specified API usage limits. You will regain access on 2027-01-01 at 00:00 UTC.",
    ),
    "on_hold": _Row(status=400, type="invalid_request_error", error_code="organization_on_hold", message="Your organization is on hold."),
    "region": _Row(status=403, type="permission_error", message="Access from this country, region or territory is not supported."),
    "budget": _Row(
        status=429,
        type="rate_limit_error",
        error_code="contract_spend_limit_reached",
        message="Your organization has reached the spend limit of its contract.",
    ),
    "rpd": _Row(
        status=429,
        type="rate_limit_error",
        message="This request would exceed your organization's rate limit of 10000 requests per day.",
        headers={"retry-after": "22320"},
    ),
    "limit_zero": _Row(
        status=429,
        type="rate_limit_error",
        message="This request would exceed your organization's rate limit of 0 requests per minute (model: {model}).",
        headers={"anthropic-ratelimit-requests-limit": "0", "anthropic-ratelimit-requests-remaining": "0"},
    ),
    "oversize": _Row(
        status=429,
        type="rate_limit_error",
        message="This request's 48211 input tokens are more than your organization's whole rate limit of 30000 input tokens per minute.",
    ),
    "model_not_found": _Row(status=404, type="not_found_error", message="model: {model}"),
    "path_not_found": _Row(status=404, type="not_found_error", message="Not found"),
    "context_length": _Row(status=400, type="invalid_request_error", message="prompt is too long: {tokens} tokens > {window} maximum"),
    "content_policy": _Row(status=400, type="invalid_request_error", message="Output blocked by content filtering policy"),
    "invalid_request": _Row(status=400, type="invalid_request_error", message="messages: Input should be a valid list"),
    "unsupported_parameter": _Row(status=400, type="invalid_request_error", message="`temperature` may not be set with this model."),
    "422": _Row(status=422, type="invalid_request_error", message="Unprocessable request."),
    "unknown_url": _Row(status=404, type="not_found_error", message="Not found: {method} {path}"),
    "method": _Row(status=405, type="invalid_request_error", message="Method Not Allowed: {method} {path}"),
    "client_id": _Row(status=400, type="invalid_request_error", message="x-client-request-id: must be ASCII and at most 512 characters"),
    "marker": _Row(status=400, type="invalid_request_error", message="No fault is called '{marker}'. `batchllm simulate --list-faults` lists them."),
    "slots": _Row(status=529, type="overloaded_error", message="Overloaded"),
    # The simulator's own, for what a client got wrong.
    "invalid": _Row(status=400, type="invalid_request_error", message="{message}"),
    "too_large": _Row(status=413, type="request_too_large", message="Request exceeds the maximum size"),
}


def reply(name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None) -> ErrorReply:
    """The error called `name`; `details` fill its message and its `request_id`."""
    row = _ROWS.get(name)
    if row is None:
        page = gateway.reply(name)
        if page is None:
            raise KeyError(name)
        return page
    headers = {**_JSON, **row.headers}
    if name == "429_date":
        headers |= {"date": formatdate(utc, usegmt=True), "retry-after": formatdate(utc + 1, usegmt=True)}
    words = {"model": model or "unknown", "window": 200_000, "tokens": 210_000, "request_id": None, **(details or {})}
    return ErrorReply(status=row.status, headers=headers, body=_body(row.type, row.message.format_map(words), row.error_code, words["request_id"]))


def refused(refusal: Refusal, *, model: str, hints: str, request_id: str) -> ErrorReply:
    """The 429 of a bucket: `retry-after` in whole seconds, unless it can never pass."""
    what = refusal.dimension.replace("_", " ")
    message = f"This request would exceed your organization's rate limit of {refusal.limit} {what} per {refusal.window} (model: {model})."
    headers = dict(_JSON)
    if refusal.wait_seconds is None:
        message = f"This request's {refusal.requested} {what} are more than your organization's whole rate limit of {refusal.limit} {what} per {refusal.window}."
    elif hints in ("both", "seconds"):
        headers["retry-after"] = str(max(math.ceil(refusal.wait_seconds - 1e-6), 1))
    return ErrorReply(status=429, headers=headers, body=_body("rate_limit_error", message, None, request_id))


def event(name: str) -> dict[str, Any]:
    """The data of an `error` event in a stream."""
    row = _ROWS[name]
    return {"type": "error", "error": {"type": row.type, "message": row.message}}


def _body(kind: str, message: str, error_code: str | None, request_id: str | None) -> bytes:
    error: dict[str, Any] = {"type": kind, "message": message}
    if error_code is not None:
        error["details"] = {"error_code": error_code}
    return json.dumps({"type": "error", "error": error, "request_id": request_id})
