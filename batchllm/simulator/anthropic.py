"""The Anthropic dialect: messages as objects and as named events (protocols B.3, B.4), their headers (B.7), token counts and the list of models (B.6).

The traps of this wire: `usage.input_tokens` leaves out what the cache read and wrote, a tool's input is an object and only a stream brings it as text, and a filter or
a refusal is an ordinary 200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from batchllm.core import json
from batchllm.simulator import anthropic_errors, anthropic_request
from batchllm.simulator.bucket import Bucket, Buckets, Refusal
from batchllm.simulator.dialect import Answer, Aside, Ask, Choice, Dialect, ErrorReply, Problem
from batchllm.simulator.settings import Accounting

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool": "tool_use", "filter": "refusal", "error": None, None: None}
_STOP_OF_FAULT = {"window_full": "model_context_window_exceeded", "paused": "pause_turn"}
_LIST_MAX = 1000
_SHOWN = ("sim-small", "sim-large")
_SIGNATURE = "c2ltdWxhdGVk"


class AnthropicMessages:
    """`POST /v1/messages`, as it is for one `anthropic-version` header."""

    accounting: Accounting = "anthropic"
    # A 402 always needs a human here, and there are no choices and no chunks that could lack them.
    without: frozenset[str] = frozenset(("402_retry_after", "stream_first_empty", "stream_usage_in_choices"))

    def __init__(self, *, version: str | None, two_keys: bool = False) -> None:
        self._version = version
        self._two_keys = two_keys

    def key(self, headers: Mapping[str, str]) -> str | None:
        """`x-api-key`, or the Bearer token that newer SDKs send."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return headers.get("x-api-key") or (key.strip() if scheme.lower() == "bearer" else None)

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return self._checked(body, counting=False)

    def _checked(self, body: bytes, *, counting: bool) -> Ask | Problem:
        if self._two_keys:
            return Problem(name="invalid", details={"message": "Both `x-api-key` and `Authorization` were sent; send one of them."})
        return anthropic_request.parse(body, version=self._version, counting=counting)

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """A `message` object."""
        del utc  # nothing in a message tells the time
        if fault == "finish_error":
            return anthropic_errors.reply("error_200", model=ask.model, utc=0.0, details=None).body
        choice = answer.choices[0]
        document = _message(ask, _content(choice, fault), _stop_reason(choice, fault), choice)
        document["usage"] = _usage(answer, fault)
        if fault == "usage_missing":
            del document["usage"]
        if fault == "no_choices":
            del document["content"]
            document["stop_reason"] = None
        return json.dumps(document)

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """Named events: the message's start, each block in pieces, the reason why it stopped with the usage, the end."""
        del utc
        choice = answer.choices[0]
        usage = _usage(answer, fault)
        start = _message(ask, [], None, None)
        if fault != "usage_missing":
            start["usage"] = {**usage, "output_tokens": type(usage["output_tokens"])(min(answer.usage.output_tokens, 1))}
        frames = [_event({"type": "message_start", "message": start}), _event({"type": "ping"})]
        running = {} if fault != "stream_usage_every" else {"usage": {"output_tokens": 1}}
        arguments = choice.tool_call.arguments if choice.tool_call is not None else ""
        for index, block in enumerate(_content(choice, fault)):
            opened, deltas = _pieces_of(block, arguments)
            frames.append(_event({"type": "content_block_start", "index": index, "content_block": opened}))
            frames += [_event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas]
            frames.append(_event({"type": "content_block_stop", "index": index}))
            if running:
                frames.append(_event({"type": "message_delta", "delta": {"stop_reason": None, "stop_sequence": None}, **running}))
        if fault in ("stream_error", "finish_error"):
            return [*frames[: max(len(frames) // 2, 3)], _event(anthropic_errors.event("529"))]
        if fault == "stream_stall_comments":
            return [*frames[:3], _event({"type": "ping"}), _event({"type": "ping"})]
        if fault == "stream_no_finish":
            return frames
        delta: dict[str, Any] = {"type": "message_delta", "delta": _ending(choice, fault)}
        if fault != "usage_missing":
            delta["usage"] = usage
        frames.append(_event(delta))
        if fault != "stream_no_done":
            frames.append(_event({"type": "message_stop"}))
        return frames

    def stream_type(self) -> str:
        """SSE."""
        return "text/event-stream; charset=utf-8"

    def headers(self, request_id: str, *, seconds: float, utc: float, buckets: Buckets | None) -> dict[str, str]:
        """B.7's headers, for the limits that exist. Resets are moments, and token counts are rounded to thousands: neither is exact."""
        del seconds
        found = {"content-type": "application/json", "request-id": request_id, "anthropic-organization-id": "00000000-0000-4000-8000-000000000000"}
        if buckets is None:
            return found
        inputs, outputs = buckets.input_tokens[:1], buckets.output_tokens[:1]
        # The tightest limit in force; without one, input and output together.
        both = buckets.tokens[:1] or [*inputs, *outputs]
        rows = (("requests", (buckets.requests or buckets.requests_day)[:1]), ("tokens", both), ("input-tokens", inputs), ("output-tokens", outputs))
        for name, limits in rows:
            if limits:
                _limit_headers(found, name, limits, utc)
        return found

    def error(self, name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None = None) -> ErrorReply:
        """An error of B.8, or of a gateway in front."""
        return anthropic_errors.reply(name, model=model, utc=utc, details=details)

    def refused(self, refusal: Refusal, *, model: str, hints: str, request_id: str) -> ErrorReply:
        """`rate_limit_error`."""
        return anthropic_errors.refused(refusal, model=model, hints=hints, request_id=request_id)

    def models(self, names: Sequence[str], one: str | None) -> bytes | None:
        """`GET /v1/models` without paging, and `GET /v1/models/{id}`."""
        if one is not None:
            return json.dumps(_model(one)) if one in names else None
        return json.dumps(_page(list(names), {}))

    def count(self, body: bytes) -> ErrorReply | Problem:
        """`POST /v1/messages/count_tokens`."""
        ask = self._checked(body, counting=True)
        if isinstance(ask, Problem):
            return ask
        return ErrorReply(status=200, headers={"content-type": "application/json"}, body=json.dumps({"input_tokens": ask.input_tokens}))


@lru_cache(maxsize=16)
def _at(version: str | None, *, two_keys: bool) -> AnthropicMessages:
    return AnthropicMessages(version=version, two_keys=two_keys)


def find(path: str, _query: Mapping[str, str], headers: Mapping[str, str]) -> Dialect | None:
    """The dialect, on its own path."""
    if path not in ("/v1/messages", "/messages"):
        return None
    return _at(headers.get("anthropic-version"), two_keys="x-api-key" in headers and "authorization" in headers)


def aside(request: Aside) -> tuple[Dialect, ErrorReply | Problem] | None:
    """Counting tokens, and the models as Anthropic lists them: for whoever sends Anthropic's headers. What is left under its path is unknown to it."""
    headers, path = request.headers, request.path
    ours = "anthropic-version" in headers or "x-api-key" in headers
    dialect = _at(headers.get("anthropic-version"), two_keys="x-api-key" in headers and "authorization" in headers)
    wrong = Problem(name="method", details={"method": request.method, "path": path})
    if path in ("/v1/messages/count_tokens", "/messages/count_tokens"):
        return dialect, dialect.count(request.body) if request.method == "POST" else wrong
    if ours and (path == "/v1/models" or path.startswith("/v1/models/")):
        return dialect, _models(request) if request.method == "GET" else wrong
    if path.startswith("/v1/messages") or ours:
        return dialect, Problem(name="unknown_url", details={"method": request.method, "path": path})
    return None


def _models(request: Aside) -> ErrorReply | Problem:
    one = unquote(request.path.removeprefix("/v1/models").removeprefix("/"))
    if one:
        if request.models is not None and one not in request.models:
            return Problem(name="model_not_found", details={}, model=one)
        document = _model(one)
    else:
        document = _page(list(_SHOWN if request.models is None else request.models), request.query)
    return ErrorReply(status=200, headers={"content-type": "application/json"}, body=json.dumps(document))


def _page(names: list[str], query: Mapping[str, str]) -> dict[str, Any]:
    """`limit` models after `after_id` or before `before_id`."""
    limit = query.get("limit", "20")
    size = min(max(int(limit), 1), _LIST_MAX) if limit.isdecimal() else 20
    if query.get("after_id") in names:
        names = names[names.index(query["after_id"]) + 1 :]
    elif query.get("before_id") in names:
        names = names[: names.index(query["before_id"])][-size:]
    shown = names[:size]
    return {
        "data": [_model(name) for name in shown],
        "has_more": len(shown) < len(names),
        "first_id": shown[0] if shown else None,
        "last_id": shown[-1] if shown else None,
    }


def _model(name: str) -> dict[str, Any]:
    yes = {"supported": True}
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2026-06-01T00:00:00Z",
        "max_input_tokens": 128_000,
        "max_tokens": 64_000,
        "lifecycle": "active",
        "retires_at": None,
        "deprecated_at": None,
        "capabilities": {"batch": yes, "structured_outputs": yes, "image_input": yes, "pdf_input": yes, "citations": {"supported": False}},
    }


def _message(ask: Ask, content: list[dict[str, Any]], stop_reason: str | None, choice: Choice | None) -> dict[str, Any]:
    """All of a message but its usage."""
    refused = choice is not None and stop_reason == "refusal"
    return {
        "id": "msg_" + ask.digest[:12].hex(),
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None if choice is None else choice.stopped_by,
        "stop_details": _details(choice) if choice is not None and refused else None,
    }


def _details(choice: Choice) -> dict[str, Any]:
    return {"type": "refusal", "category": "general_harms" if choice.refusal is None else None, "explanation": choice.refusal}


def _ending(choice: Choice, fault: str | None) -> dict[str, Any]:
    """What `message_delta` tells of the end."""
    reason = _stop_reason(choice, fault)
    ending: dict[str, Any] = {"stop_reason": reason, "stop_sequence": choice.stopped_by}
    return {**ending, "stop_details": _details(choice)} if reason == "refusal" else ending


def _stop_reason(choice: Choice, fault: str | None) -> str | None:
    if fault in _STOP_OF_FAULT:
        return _STOP_OF_FAULT[fault]
    if choice.refusal is not None:
        return "refusal"
    return "stop_sequence" if choice.stopped_by is not None else _STOP[choice.finish]


def _content(choice: Choice, fault: str | None) -> list[dict[str, Any]]:
    """The blocks. A refusal has none: its words are under `stop_details`."""
    blocks: list[dict[str, Any]] = []
    if choice.thought:
        blocks.append({"type": "thinking", "thinking": choice.thought, "signature": _SIGNATURE})
    if choice.text:
        blocks.append({"type": "text", "text": choice.text})
    if choice.tool_call is not None:
        call = choice.tool_call
        # An object can't be broken JSON: what the model wrote is wrapped, as the provider advises.
        given = {"INVALID_JSON": call.arguments} if fault == "bad_arguments" else json.loads(call.arguments)
        blocks.append({"type": "tool_use", "id": "toolu_" + call.id.removeprefix("call_"), "name": call.name, "input": given})
    return blocks


def _pieces_of(block: dict[str, Any], arguments: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A block as it is opened, and its deltas. `arguments`: what a tool's input is as text."""
    match block["type"]:
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in _words(block["thinking"])]
            return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, {"type": "signature_delta", "signature": block["signature"]}]
        case "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *_words(arguments))]
            return {"type": "tool_use", "id": block["id"], "name": block["name"], "input": {}}, deltas
    return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in _words(block["text"])]


def _words(text: str) -> list[str]:
    return [word if index == 0 else " " + word for index, word in enumerate(text.split(" "))] if text else []


def _event(data: dict[str, Any]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (data["type"].encode(), json.dumps(data))


def _usage(answer: Answer, fault: str | None) -> dict[str, Any]:
    usage = answer.usage
    fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    numbers: dict[str, Any] = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
    }
    if fault == "usage_zero":
        return dict.fromkeys(numbers, 0)
    if fault == "usage_strings":
        return {name: str(number) for name, number in numbers.items()}
    return {
        **numbers,
        "cache_creation": {"ephemeral_5m_input_tokens": usage.cache_write_tokens, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
        "service_tier": "standard",
        "speed": "standard",
        "inference_geo": "us",
    }


def _limit_headers(found: dict[str, str], name: str, buckets: list[Bucket], utc: float) -> None:
    limit = sum(bucket.limit for bucket in buckets)
    used = sum(max(bucket.used(), 0.0) for bucket in buckets)
    remaining = max(int(limit - used + 1e-6), 0)
    full = utc + max(max(bucket.used(), 0.0) / bucket.rate for bucket in buckets)
    found[f"anthropic-ratelimit-{name}-limit"] = str(limit)
    found[f"anthropic-ratelimit-{name}-remaining"] = str(remaining if name == "requests" else (remaining + 500) // 1000 * 1000)
    found[f"anthropic-ratelimit-{name}-reset"] = datetime.fromtimestamp(full, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
