"""The Ollama dialect: chat, generate and embeddings, whole or as lines of JSON (protocols D.1, D.2).

Two habits of its server are kept because clients trip over them: it streams unless it is told not to, and a number that is zero is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from batchllm.core import json
from batchllm.simulator import ollama_errors, ollama_request, vectors
from batchllm.simulator.bucket import Buckets, Refusal
from batchllm.simulator.dialect import Answer, Ask, Choice, Dialect, ErrorReply, Problem
from batchllm.simulator.ollama_models import Shelf
from batchllm.simulator.openai import pieces
from batchllm.simulator.settings import Accounting

_LOAD_NS = 101_397_084
_PROMPT_TOKEN_NS = 400_000
_TOKEN_NS = 20_000_000
_FINISH = {"stop": "stop", "length": "length", "tool": "stop", "filter": "stop", "error": "stop", None: None}
# Words and numbers that this wire can't say, and bends of SSE that lines of JSON don't have.
_UNSAID = frozenset({"content_filter", "prompt_blocked", "usage_strings", "usage_cached", "usage_cache_write"}) | frozenset(
    {"stream_no_done", "stream_usage_every", "stream_first_empty", "stream_usage_in_choices", "stream_comments", "padding"}
)
_WORDLESS = frozenset(
    {"length", "window_full", "paused", "empty", "empty_length", "bad_json", "schema_violation", "bad_arguments", "refusal"}
) | frozenset({"finish_null", "usage_reasoning"})


class _Wire:
    """What all of its paths share. It knows no limits and sends no headers about them."""

    accounting: Accounting = "openai"
    without: frozenset[str] = _UNSAID

    def __init__(self, shelf: Shelf, window: int) -> None:
        self._shelf = shelf
        self._window = window

    def key(self, headers: Mapping[str, str]) -> str | None:
        """The Bearer token of its cloud."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return key.strip() if scheme.lower() == "bearer" else None

    def stream_type(self) -> str:
        """Lines of JSON."""
        return "application/x-ndjson"

    def headers(self, request_id: str, *, seconds: float, utc: float, buckets: Buckets | None) -> dict[str, str]:
        """Nothing but the type: no request id, no limits."""
        del request_id, seconds, utc, buckets
        return {"content-type": "application/json; charset=utf-8"}

    def error(self, name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None = None) -> ErrorReply:
        """An error of D.3."""
        return ollama_errors.reply(name, model=model, utc=utc, details=details or {})

    def refused(self, refusal: Refusal, *, model: str, hints: str, request_id: str) -> ErrorReply:
        """The 429 of its cloud."""
        del model, request_id  # not said
        return ollama_errors.refused(refusal, hints=hints)

    def models(self, names: Sequence[str], one: str | None) -> bytes | None:
        """`/api/tags` is answered elsewhere."""
        del names, one
        return None


class _Talk(_Wire):
    """Chat and generate differ in where the words stand."""

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """The whole answer in one object."""
        self._shelf.use(ask.model, utc)
        choice = answer.choices[0]
        if choice.finish == "error":
            return json.dumps({"error": ollama_errors.CRASHED})
        said = {} if fault == "no_choices" else self.said(_words(choice), choice.thought, choice)
        return json.dumps({**_head(ask, utc), **said, **self.last(choice), **_end(answer, choice, fault)})

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """Pieces of the text, and a last object with the numbers."""
        self._shelf.use(ask.model, utc)
        choice = answer.choices[0]
        head = _head(ask, utc)
        parts = [self.said("", piece, None) for piece in pieces(choice.thought or "")]
        parts += [self.said(piece, None, None) for piece in pieces(_words(choice))]
        if choice.tool_call is not None and _words(choice) == "":
            parts.append(self.said("", None, choice))
        frames = [_line({**head, **part, "done": False}) for part in parts]
        if fault == "stream_stall_comments":
            return frames[:1]
        if fault == "stream_error" or choice.finish == "error":
            kept = frames[: max(len(frames) // 2, 1)] if fault == "stream_error" else frames
            return [*kept, _line({"error": ollama_errors.CRASHED})]
        if fault == "stream_no_finish":
            return frames
        return [*frames, _line({**head, **self.said("", None, None), **self.last(choice), **_end(answer, choice, fault)})]

    def said(self, text: str, thought: str | None, choice: Choice | None) -> dict[str, Any]:
        """A part of the answer; `choice` where its tool call belongs to it."""
        raise NotImplementedError

    def last(self, choice: Choice) -> dict[str, Any]:
        """What the last object has besides."""
        del choice
        return {}


class OllamaChat(_Talk):
    """`POST /api/chat`."""

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return ollama_request.chat(body, self._shelf, self._window)

    def said(self, text: str, thought: str | None, choice: Choice | None) -> dict[str, Any]:
        """Under `message`."""
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if thought:
            message["thinking"] = thought
        call = _call(choice)
        if call is not None:
            message["tool_calls"] = [call]
        return {"message": message}


class OllamaGenerate(_Talk):
    """`POST /api/generate`."""

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return ollama_request.generate(body, self._shelf, self._window)

    def said(self, text: str, thought: str | None, choice: Choice | None) -> dict[str, Any]:
        """Under `response`."""
        del choice  # no tools here
        return {"response": text, "thinking": thought} if thought else {"response": text}

    def last(self, choice: Choice) -> dict[str, Any]:
        """Token ids to go on with; invented."""
        return {"context": [len(piece) for piece in pieces(choice.text or "")]}


class OllamaEmbed(_Wire):
    """`POST /api/embed` (many inputs), and `POST /api/embeddings`, its elder (one prompt)."""

    without: frozenset[str] = _UNSAID | _WORDLESS

    def __init__(self, shelf: Shelf, window: int, *, many: bool) -> None:
        super().__init__(shelf, window)
        self._many = many

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return ollama_request.embed(body, self._shelf, self._window, "input" if self._many else "prompt")

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """The vectors."""
        self._shelf.use(ask.model, utc)
        found = [] if fault == "no_choices" else [vectors.floats(vector) for vector in answer.vectors]
        if not self._many:
            return json.dumps({"embedding": found[0] if found else []})
        tokens = 0 if fault in ("usage_missing", "usage_zero") else answer.usage.input_tokens
        numbers = {"total_duration": _LOAD_NS + tokens * _PROMPT_TOKEN_NS, "load_duration": _LOAD_NS, "prompt_eval_count": tokens}
        return json.dumps({"model": ask.model, "embeddings": found, **_nonzero(numbers)})

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """There is no stream of vectors."""
        return [self.body(ask, answer, utc=utc, fault=fault)]


def routes(shelf: Shelf, window: int) -> dict[str, Dialect]:
    """Its paths that ask a model."""
    return {
        "/api/chat": OllamaChat(shelf, window),
        "/api/generate": OllamaGenerate(shelf, window),
        "/api/embed": OllamaEmbed(shelf, window, many=True),
        "/api/embeddings": OllamaEmbed(shelf, window, many=False),
    }


def stamp(utc: float) -> str:
    """A moment as Go prints it."""
    return datetime.fromtimestamp(utc, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _head(ask: Ask, utc: float) -> dict[str, Any]:
    return {"model": ask.model, "created_at": stamp(utc)}


def _words(choice: Choice) -> str:
    """The text. A refusal is text like any other here, and so is a tool call that can't be read."""
    if choice.tool_call is not None and _call(choice) is None:
        return f'{{"name": "{choice.tool_call.name}", "parameters": {choice.tool_call.arguments}'
    return choice.text or choice.refusal or ""


def _call(choice: Choice | None) -> dict[str, Any] | None:
    """The tool call, arguments as an object; None when there is none."""
    if choice is None or choice.tool_call is None:
        return None
    try:
        arguments = json.loads(choice.tool_call.arguments)
    except json.JSONDecodeError:
        return None
    return {"id": choice.tool_call.id, "function": {"index": 0, "name": choice.tool_call.name, "arguments": arguments}}


def _end(answer: Answer, choice: Choice, fault: str | None) -> dict[str, Any]:
    usage = answer.usage
    silent = fault in ("usage_missing", "usage_zero")
    prompt, spoken = usage.input_tokens * _PROMPT_TOKEN_NS, usage.output_tokens * _TOKEN_NS
    numbers = {
        "total_duration": _LOAD_NS + prompt + spoken,
        "load_duration": _LOAD_NS,
        "prompt_eval_count": 0 if silent else usage.input_tokens,
        "prompt_eval_duration": prompt,
        "eval_count": 0 if silent else usage.output_tokens,
        "eval_duration": spoken,
    }
    finish = _FINISH[choice.finish]
    return {"done": True, **({"done_reason": finish} if finish else {}), **_nonzero(numbers)}


def _nonzero(numbers: Mapping[str, int]) -> dict[str, int]:
    return {name: number for name, number in numbers.items() if number}


def _line(document: dict[str, Any]) -> bytes:
    return json.dumps(document) + b"\n"
