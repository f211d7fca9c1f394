"""The OpenAI dialect's embeddings (protocols A.6): many inputs in one request, vectors as numbers or as base64 of float32.

The limits are the real server's, because they decide how many inputs a client may pack together: 2048 inputs, 8192 tokens each, 300,000 in all.
"""

from __future__ import annotations

import base64
from typing import Any

from batchllm.core import json
from batchllm.core.words import count_text
from batchllm.simulator import openai_request, vectors
from batchllm.simulator.dialect import Answer, Ask, Problem
from batchllm.simulator.openai import OpenAIWire

_INPUTS_MAX = 2048
_INPUT_TOKENS_MAX = 8192
_REQUEST_TOKENS_MAX = 300_000


class OpenAIEmbeddings(OpenAIWire):
    """`POST /v1/embeddings`."""

    # What can be wrong with words only.
    without: frozenset[str] = frozenset(
        {"length", "window_full", "paused", "empty", "empty_length", "bad_json", "schema_violation", "bad_arguments", "refusal", "content_filter"}
        | {"finish_null", "prompt_blocked", "usage_cached", "usage_cache_write", "usage_reasoning"}
    )

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        document = openai_request.read(body)
        if isinstance(document, Problem):
            return document
        model = document["model"]
        inputs = openai_request.texts(document.get("input"))
        problem = _inputs_problem(inputs) or _form_problem(document, model)
        if problem is not None or inputs is None:
            return openai_request.invalid(*(problem or ("Missing required parameter: 'input'.", "input")), model=model)
        counts = [count_text(text) for text in inputs]
        problem = _size_problem(counts)
        if problem is not None:
            return openai_request.invalid(*problem, model=model)
        return Ask(
            model=model,
            messages=[],
            digest=openai_request.digest(document),
            input_tokens=sum(counts),
            cap=0,
            inputs=inputs,
            dimensions=document.get("dimensions"),
            base64=document.get("encoding_format") == "base64",
            last_text=next((text for text in inputs if "[[sim:" in text), inputs[-1]),
        )

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """A list of `embedding` objects."""
        del utc  # nothing is dated here
        rows = [
            {"object": "embedding", "index": index, "embedding": base64.b64encode(vector).decode() if ask.base64 else vectors.floats(vector)}
            for index, vector in enumerate(answer.vectors)
        ]
        tokens: Any = answer.usage.input_tokens
        if fault == "usage_zero":
            tokens = 0
        elif fault == "usage_strings":
            tokens = str(tokens)
        document: dict[str, Any] = {"object": "list", "data": [] if fault == "no_choices" else rows, "model": ask.model}
        if fault != "usage_missing":
            document["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return json.dumps(document)

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """There is no stream of vectors."""
        return [self.body(ask, answer, utc=utc, fault=fault)]


def _inputs_problem(inputs: list[str] | None) -> tuple[str, str] | None:
    if inputs is None:
        return "Invalid 'input': expected a string, an array of strings, or token ids.", "input"
    if len(inputs) > _INPUTS_MAX:
        return f"Invalid 'input': array too long. Expected an array with maximum length {_INPUTS_MAX}, but got {len(inputs)} instead.", "input"
    if any(not text for text in inputs):
        return "Invalid 'input': input cannot be an empty string.", "input"
    return None


def _size_problem(counts: list[int]) -> tuple[str, str] | None:
    for index, tokens in enumerate(counts):
        if tokens > _INPUT_TOKENS_MAX:
            return f"Invalid 'input[{index}]': maximum input length is {_INPUT_TOKENS_MAX} tokens.", "input"
    if sum(counts) > _REQUEST_TOKENS_MAX:
        return f"Requested {sum(counts)} tokens, max {_REQUEST_TOKENS_MAX} tokens per request.", "input"
    return None


def _form_problem(document: dict[str, Any], model: str) -> tuple[str, str] | None:
    form = document.get("encoding_format")
    if form not in (None, "float", "base64"):
        return f"Invalid value: {json.text(form)}. Supported values are: 'float' and 'base64'.", "encoding_format"
    size = document.get("dimensions")
    if size is None:
        return None
    most = vectors.size_of(model)
    if model == "text-embedding-ada-002":
        return "This model does not support specifying dimensions.", "dimensions"
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= most:
        return f"Invalid value for 'dimensions': expected an integer from 1 to {most}, but got {json.text(size)} instead.", "dimensions"
    return None
