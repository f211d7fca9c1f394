"""The OpenAI dialect: what all of its endpoints share (protocols A.1, A.8), and chat completions as objects and as streams (A.2-A.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.core import json
from batchllm.simulator import openai_errors, openai_request
from batchllm.simulator.bucket import Bucket, Buckets, Refusal
from batchllm.simulator.dialect import Answer, Ask, Choice, ErrorReply, Problem
from batchllm.simulator.settings import Accounting

_FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls", "filter": "content_filter", "error": "error", None: None}
DONE = b"data: [DONE]\n\n"
"""The end of a stream."""


class OpenAIWire:
    """Everything but the requests and answers themselves."""

    accounting: Accounting = "openai"
    without: frozenset[str] = frozenset()

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The Bearer token."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None

    def stream_type(self) -> str:
        """SSE."""
        return "text/event-stream; charset=utf-8"

    def headers(self, request_id: str, *, seconds: float, utc: float, buckets: Buckets | None) -> dict[str, str]:
        """A.1's headers; `x-ratelimit-*` for the limits that exist. `reset` is the time until the bucket is full again."""
        del utc  # resets are durations here
        found = {
            "content-type": "application/json",
            "x-request-id": request_id,
            "openai-processing-ms": str(round(seconds * 1000)),
            "openai-version": "2020-10-01",
            "openai-organization": "org-simulated",
        }
        if buckets is not None:
            # Minute or day, under the same names: only limit, remaining and reset together tell which (protocols A.1, G).
            if requests := buckets.requests or buckets.requests_day:
                _limit_headers(found, "requests", requests[0])
            if tokens := buckets.tokens or buckets.tokens_day:
                _limit_headers(found, "tokens", tokens[0])
        return found

    def error(self, name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None = None) -> ErrorReply:
        """An error of A.8, or of a gateway in front."""
        return openai_errors.reply(name, model=model, utc=utc, details=details)

    def refused(self, refusal: Refusal, *, model: str, hints: str, request_id: str) -> ErrorReply:
        """`rate_limit_exceeded`, or `Request too large`."""
        del request_id  # in the headers only
        return openai_errors.refused(refusal, model=model, hints=hints)

    def models(self, names: Sequence[str], one: str | None) -> bytes | None:
        """`GET /v1/models` and `GET /v1/models/{id}`."""
        rows = [{"id": name, "object": "model", "created": 1_780_000_000, "owned_by": "simulated", "shutdown_date": None} for name in names]
        if one is None:
            return json.dumps({"object": "list", "data": rows})
        return next((json.dumps(row) for row in rows if row["id"] == one), None)


class OpenAIChat(OpenAIWire):
    """`POST /v1/chat/completions`."""

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return openai_request.parse(body)

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """A `chat.completion` object."""
        choices: list[dict[str, Any]] = [
            {
                "index": index,
                "message": _message(choice),
                "logprobs": _logprobs(choice) if ask.logprobs else None,
                "finish_reason": _FINISH[choice.finish],
            }
            for index, choice in enumerate(answer.choices)
        ]
        document: dict[str, Any] = {
            "id": _identifier(ask),
            "object": "chat.completion",
            "created": int(utc),
            "model": ask.model,
            "choices": [] if fault == "no_choices" else choices,
            "usage": usage_of(answer, fault),
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }
        if fault == "usage_missing":
            del document["usage"]
        return json.dumps(document)

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """`chat.completion.chunk` frames: the role, the text in pieces, the finish reason, usage if it was asked for, `[DONE]`."""
        head = {
            "id": _identifier(ask),
            "object": "chat.completion.chunk",
            "created": int(utc),
            "model": ask.model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulated",
        }
        usage = usage_of(answer, fault)
        every = {"usage": usage} if fault == "stream_usage_every" else {"usage": None} if ask.stream_usage else {}
        deltas = [(index, delta, finish) for index, choice in enumerate(answer.choices) for delta, finish in _deltas(choice)]
        if fault == "stream_no_finish":
            deltas = [(index, delta, None) for index, delta, _ in deltas]
        frames = [
            event({**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}], **every})
            for index, delta, finish in deltas
        ]
        if fault == "stream_error":
            error = openai_errors.reply("500", model=ask.model, utc=utc, details=None).body
            return [*frames[: max(len(frames) // 2, 1)], b"data: " + error + b"\n\n"]
        if fault == "stream_stall_comments":
            return frames[:2]
        if fault == "stream_first_empty":
            frames.insert(0, event({**head, "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}))
        if ask.stream_usage and fault not in ("usage_missing", "stream_no_finish"):
            choices = [{"index": 0, "delta": {}}] if fault == "stream_usage_in_choices" else []
            frames.append(event({**head, "choices": choices, "usage": usage}))
        if fault not in ("stream_no_done", "stream_no_finish"):
            frames.append(DONE)
        return frames


def _limit_headers(found: dict[str, str], dimension: str, bucket: Bucket) -> None:
    # Told over the whole limit even when the bucket is smaller, as providers do: used = limit * reset / 60 s holds for any size.
    used = max(bucket.used(), 0.0)
    found[f"x-ratelimit-limit-{dimension}"] = str(bucket.limit)
    found[f"x-ratelimit-remaining-{dimension}"] = str(max(int(bucket.limit - used + 1e-6), 0))
    found[f"x-ratelimit-reset-{dimension}"] = openai_errors.go_duration(used / bucket.rate)


def _identifier(ask: Ask) -> str:
    return "chatcmpl-" + ask.digest[:12].hex()


def _message(choice: Choice) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": choice.refusal, "annotations": []}
    if choice.tool_call is not None:
        call = choice.tool_call
        message["tool_calls"] = [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}]
    return message


def _deltas(choice: Choice) -> list[tuple[dict[str, Any], str | None]]:
    deltas: list[tuple[dict[str, Any], str | None]] = [({"role": "assistant", "content": None if choice.text is None else "", "refusal": None}, None)]
    if choice.tool_call is not None:
        call = choice.tool_call
        deltas.append(({"tool_calls": [{"index": 0, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}]}, None))
        deltas += [({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, None) for piece in pieces(call.arguments)]
    elif choice.refusal is not None:
        deltas += [({"refusal": piece}, None) for piece in pieces(choice.refusal)]
    else:
        deltas += [({"content": piece}, None) for piece in pieces(choice.text or "")]
    return [*deltas, ({}, _FINISH[choice.finish])]


def event(document: dict[str, Any]) -> bytes:
    """A frame without a name."""
    return b"data: " + json.dumps(document) + b"\n\n"


def pieces(text: str) -> list[str]:
    """A text as a stream brings it: word by word."""
    words = text.split(" ")
    return [word if index == 0 else " " + word for index, word in enumerate(words)] if text else []


def _logprobs(choice: Choice) -> dict[str, Any] | None:
    if choice.text is None:
        return None
    # Invented, but of the right form: longer words are less likely.
    rows = [{"token": piece, "logprob": -0.01 * len(piece), "bytes": list(piece.encode()), "top_logprobs": []} for piece in pieces(choice.text)]
    return {"content": rows, "refusal": None}


def usage_of(answer: Answer, fault: str | None) -> dict[str, Any]:
    """`usage`, or what a fault makes of it."""
    usage = answer.usage
    if fault == "usage_zero":
        return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    numbers: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if fault == "usage_strings":
        return {name: str(number) for name, number in numbers.items()}
    numbers["prompt_tokens_details"] = {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": usage.cache_write_tokens, "audio_tokens": 0}
    numbers["completion_tokens_details"] = {
        "reasoning_tokens": usage.reasoning_tokens,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return numbers
