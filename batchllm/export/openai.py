"""Results as the output lines of OpenAI's Batch API, so that what reads those reads ours.

The body is the provider's own where it was kept and the wire is OpenAI's; otherwise a minimal one is made from the result.
https://platform.openai.com/docs/api-reference/batch/request-output
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from batchllm.core import json
from batchllm.core.nouns import Result

WIRES = frozenset({"openai", "openai-compatible", "simulated"})
"""Providers whose bodies are OpenAI's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What passed over the wire for a finished row."""

    row_key: int
    finished_at: float = 0.0
    """Seconds since 1970 UTC."""
    provider: str | None = None
    model_id: str | None = None
    request_id: str | None = None
    response: str | bytes | None = None
    """The kept body of the accepted attempt, or of a failed row's last one."""


def batch_line(result: Result, exchange: Exchange) -> dict[str, Any]:
    """The object of one line. A failed row with an HTTP status is a response with that status, one without is an error."""
    line: dict[str, Any] = {"id": f"batch_req_{exchange.row_key}", "custom_id": result.custom_id, "response": None, "error": None}
    if result.ok:
        line["response"] = _response(200, exchange, _kept(exchange, "choices") or completion(result, exchange))
    elif result.error is not None and result.error.http_status is not None:
        status = result.error.http_status
        kept = _kept(exchange, "choices" if status == 200 else "error")
        line["response"] = _response(status, exchange, kept or _error_body(result))
    else:
        error = result.error
        line["error"] = {"code": str(error.code) if error is not None else None, "message": error.message if error is not None else None}
    return line


def _response(status: int, exchange: Exchange, body: Mapping[str, Any]) -> dict[str, Any]:
    return {"status_code": status, "request_id": exchange.request_id, "body": body}


def _kept(exchange: Exchange, key: str) -> dict[str, Any] | None:
    """The kept body, if it is an object of OpenAI's form."""
    if exchange.provider not in WIRES or exchange.response is None:
        return None
    try:
        body = json.loads(exchange.response)
    except json.JSONDecodeError:
        return None
    return body if isinstance(body, dict) and key in body else None


def _error_body(result: Result) -> dict[str, Any]:
    error = result.error
    assert error is not None
    return {"error": {"message": error.message, "type": str(error.code), "param": None, "code": error.provider_code}}


def completion(result: Result, exchange: Exchange) -> dict[str, Any]:
    """A minimal `chat.completion` (of a vector: a list of one embedding) that says what the result says."""
    if isinstance(result.output, list):
        return _embedding(result, exchange)
    calls = list(result.tool_calls) if result.tool_calls else None
    message: dict[str, Any] = {"role": "assistant", "content": result.output, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    body: dict[str, Any] = {
        "id": f"chatcmpl-{exchange.row_key}",
        "object": "chat.completion",
        "created": int(exchange.finished_at),
        "model": result.provider_model or exchange.model_id or result.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(result, calls)}],
    }
    usage = result.usage
    if usage is not None:
        body["usage"] = {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        }
    return body


def _embedding(result: Result, exchange: Exchange) -> dict[str, Any]:
    tokens = result.usage.input_tokens if result.usage is not None else None
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": result.output}],
        "model": result.provider_model or exchange.model_id or result.model,
        **({"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if tokens is not None else {}),
    }


def _finish(result: Result, calls: Any) -> str:
    """OpenAI's word; other wires' words for the same become it."""
    word = (result.finish_reason or "").lower()
    if word in {"length", "max_tokens", "max_output_tokens"}:
        return "length"
    if word in {"content_filter", "safety"}:
        return "content_filter"
    return "tool_calls" if calls else "stop"
