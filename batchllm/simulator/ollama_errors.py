"""Ollama's errors: a text under `error`, and an object where the engine inside speaks for itself (protocols D.3).

What it never says itself (limits, money, keys) comes from its cloud or from a gateway in front, with OpenAI's words in Ollama's form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from batchllm.core import json
from batchllm.simulator import openai_errors
from batchllm.simulator.bucket import Refusal
from batchllm.simulator.dialect import ErrorReply

_JSON = {"content-type": "application/json; charset=utf-8"}
_TEXT = {"content-type": "text/plain; charset=utf-8"}
CRASHED = "an error was encountered while running the model: llama runner process has terminated"
_BUSY = "server busy, please try again.  maximum pending requests exceeded"
_WORDS = {
    "500": (500, CRASHED),
    "503": (503, _BUSY),
    "503_retry_after": (503, _BUSY),
    "slots": (503, _BUSY),
    "error_200": (200, CRASHED),
    "401": (401, "unauthorized"),
    "no_key": (401, "unauthorized"),
    "model_not_found": (404, "model '{model}' not found"),
    "slow_down": (429, "too many requests, please slow down"),
}
_PLAIN = {"method": (405, b"405 method not allowed"), "unknown_url": (404, b"404 page not found"), "path_not_found": (404, b"404 page not found")}


def reply(name: str, *, model: str | None, utc: float, details: Mapping[str, Any]) -> ErrorReply:
    """The error called `name`."""
    if name in _PLAIN:
        status, page = _PLAIN[name]
        return ErrorReply(status=status, headers=_TEXT, body=page)
    if name == "invalid":
        return ErrorReply(status=details.get("status", 400), headers=_JSON, body=json.dumps({"error": details["message"]}))
    if name == "context_length":
        return _too_long(int(details.get("tokens", 131_072)), int(details.get("window", 128_000)))
    foreign = openai_errors.reply(name, model=model, utc=utc, details=details) if name not in _WORDS or name == "503_retry_after" else None
    headers = {} if foreign is None else foreign.headers
    if name in _WORDS:
        status, words = _WORDS[name]
        body = {"error": words.replace("{model}", model or "")}
        if status == 401:
            body["signin_url"] = "https://ollama.com/connect"
        return ErrorReply(status=status, headers={**headers, **_JSON}, body=json.dumps(body))
    assert foreign is not None
    if not headers.get("content-type", "").startswith("application/json") or not foreign.body:
        return foreign
    document = json.loads(foreign.body)
    error = document.get("error", document.get("detail"))
    return ErrorReply(
        status=foreign.status, headers={**headers, **_JSON}, body=json.dumps({"error": error["message"] if isinstance(error, dict) else error})
    )


def refused(refusal: Refusal, *, hints: str) -> ErrorReply:
    """The 429 of a bucket, as Ollama's cloud says it."""
    headers = dict(_JSON)
    words = f"you have reached your usage limit ({refusal.dimension})"
    if refusal.wait_seconds is not None:
        words += f", please try again in {openai_errors.go_duration(max(refusal.wait_seconds, 0.001))}"
        if hints in ("both", "seconds"):
            headers["retry-after"] = str(max(math.ceil(refusal.wait_seconds), 1))
    return ErrorReply(status=429, headers=headers, body=json.dumps({"error": words}))


def _too_long(tokens: int, window: int) -> ErrorReply:
    message = f"request ({tokens} tokens) exceeds the available context size ({window} tokens), try increasing it"
    error = {"code": 400, "message": message, "type": "exceed_context_size_error", "n_prompt_tokens": tokens, "n_ctx": window}
    return ErrorReply(status=400, headers=_JSON, body=json.dumps({"error": error}))
