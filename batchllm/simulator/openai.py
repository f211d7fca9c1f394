"""The OpenAI dialect: chat completions as objects and as streams (protocols A.1-A.4), and the list of models (A.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchllm.core import json
from batchllm.simulator import openai_errors, openai_request
from batchllm.simulator.bucket import Bucket, Buckets, Refusal
from batchllm.simulator.dialect import Answer, Ask, Choice, ErrorReply, Problem

_FINISH = {"stop": "stop", "length": "length", "tool": "tool_calls", "filter": "content_filter", "error": "error", None: None}
_STREAM_START = b"data: "
_STREAM_STOP = b"\n\n"
_DONE = b"data: [DONE]\n\n"


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The Bearer token."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None

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
            "usage": _usage(answer, fault),
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
        usage = _usage(answer, fault)
        every = {"usage": usage} if fault == "stream_usage_every" else {"usage": None} if ask.stream_usage else {}
        deltas = [(index, delta, finish) for index, choice in enumerate(answer.choices) for delta, finish in _deltas(choice)]
        if fault == "stream_no_finish":
            deltas = [(index, delta, None) for index, delta, _ in deltas]
        frames = [
            _STREAM_START
            + json.dumps({**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}], **every})
            + _STREAM_STOP
            for index, delta, finish in deltas
        ]
        if fault == "stream_error":
            error = openai_errors.reply("500", model=ask.model, utc=utc, details=None).body
            return [*frames[: max(len(frames) // 2, 1)], _STREAM_START + error + _STREAM_STOP]
        if fault == "stream_stall_comments":
            return frames[:1]
        if ask.stream_usage and fault not in ("usage_missing", "stream_no_finish"):
            frames.append(_STREAM_START + json.dumps({**head, "choices": [], "usage": usage}) + _STREAM_STOP)
        if fault not in ("stream_no_done", "stream_no_finish"):
            frames.append(_DONE)
        return frames

    def stream_type(self) -> str:
        """SSE."""
        return "text/event-stream; charset=utf-8"

    def headers(self, request_id: str, *, seconds: float, buckets: Buckets | None) -> dict[str, str]:
        """A.1's headers; `x-ratelimit-*` for the limits that exist. `reset` is the time until the bucket is full again."""
        found = {
            "content-type": "application/json",
            "x-request-id": request_id,
            "openai-processing-ms": str(round(seconds * 1000)),
            "openai-version": "2020-10-01",
            "openai-organization": "org-simulated",
        }
        if buckets is not None:
            if buckets.requests:
                _limit_headers(found, "requests", buckets.requests[0])
            if buckets.tokens:
                _limit_headers(found, "tokens", buckets.tokens[0])
        return found

    def error(self, name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None = None) -> ErrorReply:
        """An error of A.8, or of a gateway in front."""
        return openai_errors.reply(name, model=model, utc=utc, details=details)

    def refused(self, refusal: Refusal, *, model: str, hints: str) -> ErrorReply:
        """`rate_limit_exceeded`, or `Request too large`."""
        return openai_errors.refused(refusal, model=model, hints=hints)

    def models(self, names: Sequence[str], one: str | None) -> bytes | None:
        """`GET /v1/models` and `GET /v1/models/{id}`."""
        rows = [{"id": name, "object": "model", "created": 1_780_000_000, "owned_by": "simulated", "shutdown_date": None} for name in names]
        if one is None:
            return json.dumps({"object": "list", "data": rows})
        return next((json.dumps(row) for row in rows if row["id"] == one), None)


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
        deltas += [({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}, None) for piece in _pieces(call.arguments)]
    elif choice.refusal is not None:
        deltas += [({"refusal": piece}, None) for piece in _pieces(choice.refusal)]
    else:
        deltas += [({"content": piece}, None) for piece in _pieces(choice.text or "")]
    return [*deltas, ({}, _FINISH[choice.finish])]


def _pieces(text: str) -> list[str]:
    words = text.split(" ")
    return [word if index == 0 else " " + word for index, word in enumerate(words)] if text else []


def _logprobs(choice: Choice) -> dict[str, Any] | None:
    if choice.text is None:
        return None
    # Invented, but of the right form: longer words are less likely.
    rows = [{"token": piece, "logprob": -0.01 * len(piece), "bytes": list(piece.encode()), "top_logprobs": []} for piece in _pieces(choice.text)]
    return {"content": rows, "refusal": None}


def _usage(answer: Answer, fault: str | None) -> dict[str, Any]:
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
