"""The Gemini dialect: generateContent as objects and as SSE (protocols C.2), embeddings and token counts (C.3), the list of models.

The model and the method stand in the path, so each pair is a dialect object of its own. The traps of this wire: counts that are 0 are absent, thoughts are no part of
`candidatesTokenCount`, a candidate may lack its parts or its content, and a stream has no end marker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from batchllm.core import json
from batchllm.core.words import count_text
from batchllm.simulator import gemini_errors, gemini_request, vectors
from batchllm.simulator.bucket import Buckets, Refusal
from batchllm.simulator.dialect import Answer, Aside, Ask, Choice, Dialect, ErrorReply, Problem
from batchllm.simulator.settings import Accounting

_FINISH = {"stop": "STOP", "length": "MAX_TOKENS", "tool": "STOP", "filter": "SAFETY", "error": "OTHER", None: None}
_FINISH_OF_FAULT = {"paused": "CONTINUATION", "bad_arguments": "MALFORMED_FUNCTION_CALL", "refusal": "PROHIBITED_CONTENT"}
_PATH = re.compile(r"/(?:v1beta/|v1/|v1alpha/)?models/([^:]+):(\w+)")
_LIST = re.compile(r"/(v1beta|v1|v1alpha)/models(?:/([^:]+))?")
_METHODS = ("generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents")
_SHOWN = ("sim-small", "sim-large")
_OLD_EMBEDDERS = ("gemini-embedding-001", "text-embedding-004")
"""They report no usage."""
_SAFETY = [{"category": "HARM_CATEGORY_DANGEROUS_CONTENT", "probability": "HIGH", "blocked": True}]


class _Gemini:
    """What all methods share."""

    accounting: Accounting = "gemini"
    # The usage is in every chunk, no end marker can be missing, no cache write is reported, a 402 always needs a human, and its own SDK takes no comments.
    without: frozenset[str] = frozenset(
        (
            "usage_cache_write",
            "stream_no_done",
            "stream_usage_every",
            "stream_usage_in_choices",
            "402_retry_after",
            "stream_comments",
            "stream_stall_comments",
        )
    )

    def __init__(self, model: str, *, query_key: str | None) -> None:
        self._model = model
        self._query_key = query_key

    def key(self, headers: Mapping[str, str]) -> str | None:
        """`x-goog-api-key`, or `?key=`."""
        return headers.get("x-goog-api-key") or self._query_key

    def stream_type(self) -> str:
        """SSE."""
        return "text/event-stream"

    def headers(self, request_id: str, *, seconds: float, utc: float, buckets: Buckets | None) -> dict[str, str]:
        """No request id and no limits: this provider tells neither."""
        del request_id, utc, buckets
        return {"content-type": "application/json; charset=UTF-8", "server-timing": f"gfet4t7; dur={seconds * 1000:.0f}"}

    def error(self, name: str, *, model: str | None, utc: float, details: Mapping[str, Any] | None = None) -> ErrorReply:
        """An error of C.5, or of a gateway in front."""
        del utc
        return gemini_errors.reply(name, model=model, details=details)

    def refused(self, refusal: Refusal, *, model: str, hints: str, request_id: str) -> ErrorReply:
        """`RESOURCE_EXHAUSTED`."""
        del request_id
        return gemini_errors.refused(refusal, model=model, hints=hints)

    def models(self, names: Sequence[str], one: str | None) -> bytes | None:
        """`GET models` and `GET models/{id}`."""
        if one is not None:
            return json.dumps(_described(one)) if one in names else None
        return json.dumps({"models": [_described(name) for name in names]})


class GeminiGenerate(_Gemini):
    """`POST models/{m}:generateContent` and `:streamGenerateContent`."""

    # An answer without candidates means a blocked prompt here, which no retry heals: that is the fault `prompt_blocked`.
    without: frozenset[str] = _Gemini.without | {"no_choices"}

    def __init__(self, model: str, *, stream: bool, sse: bool = True, query_key: str | None = None) -> None:
        super().__init__(model, query_key=query_key)
        self._stream = stream
        self._sse = sse
        if not sse:
            self.without |= {"stream_error"}

    def stream_type(self) -> str:
        """SSE, or without `alt=sse` one long JSON array."""
        return "text/event-stream" if self._sse else "application/json; charset=UTF-8"

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return gemini_request.parse(body, model=self._model, stream=self._stream)

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """A GenerateContentResponse."""
        del utc
        return json.dumps(_document(ask, answer, fault))

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """The same shape in pieces. Only the last piece of a candidate has its finish reason; the counts grow, and the last ones hold."""
        del utc
        documents = _pieces(ask, answer, fault)
        if not self._sse:
            last = len(documents) - 1
            return [(b"[" if at == 0 else b",\r\n") + json.dumps(piece) + (b"]" if at == last else b"") for at, piece in enumerate(documents)]
        frames = [b"data: " + json.dumps(piece) + b"\r\n\r\n" for piece in documents]
        if fault == "stream_error":
            return [*frames[: max(len(frames) // 2, 1)], gemini_errors.stream_end("500")]
        return frames[:1] if fault == "stream_stall_comments" else frames


class GeminiEmbed(_Gemini):
    """`POST models/{m}:embedContent` and `:batchEmbedContents`."""

    # What can be wrong with words only.
    without: frozenset[str] = _Gemini.without | {
        *("length", "window_full", "paused", "empty", "empty_length", "bad_json", "schema_violation", "bad_arguments", "refusal", "content_filter"),
        *("finish_null", "prompt_blocked", "usage_cached", "usage_reasoning"),
    }

    def __init__(self, model: str, *, many: bool, query_key: str | None = None) -> None:
        super().__init__(model, query_key=query_key)
        self._many = many

    def parse(self, body: bytes) -> Ask | Problem:
        """Reads and checks a request."""
        return gemini_request.parse_embed(body, model=self._model, many=self._many)

    def body(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> bytes:
        """`embeddings`, or the one `embedding`. Older models tell no usage."""
        del utc
        rows = [{"values": vectors.floats(vector)} for vector in answer.vectors]
        document: dict[str, Any] = {}
        if self._many:
            document["embeddings"] = [] if fault == "no_choices" else rows
        elif fault != "no_choices" and rows:
            document["embedding"] = rows[0]
        if fault != "usage_missing" and ask.model not in _OLD_EMBEDDERS:
            tokens = 0 if fault == "usage_zero" else answer.usage.input_tokens
            document["usageMetadata"] = {"promptTokenCount": str(tokens) if fault == "usage_strings" else tokens}
        return json.dumps(document)

    def frames(self, ask: Ask, answer: Answer, *, utc: float, fault: str | None) -> list[bytes]:
        """There is no stream of vectors."""
        return [self.body(ask, answer, utc=utc, fault=fault)]


@lru_cache(maxsize=1024)
def _dialect(model: str, method: str, *, sse: bool, query_key: str | None) -> Dialect:
    if method in ("embedContent", "batchEmbedContents"):
        return GeminiEmbed(model, many=method == "batchEmbedContents", query_key=query_key)
    return GeminiGenerate(model, stream=method == "streamGenerateContent", sse=sse, query_key=query_key)


def find(path: str, query: Mapping[str, str], _headers: Mapping[str, str]) -> Dialect | None:
    """The dialect of a path with a model and a method in it."""
    found = _PATH.fullmatch(path)
    if found is None or found[2] not in _METHODS:
        return None
    return _dialect(unquote(found[1]), found[2], sse=found[2] != "streamGenerateContent" or query.get("alt") == "sse", query_key=query.get("key"))


def aside(request: Aside) -> tuple[Dialect, ErrorReply | Problem] | None:
    """Counting tokens, and the models as Google lists them: under `/v1beta`, and under `/v1` for whoever sends Google's key."""
    path, query = request.path, request.query
    ours = "x-goog-api-key" in request.headers or "key" in query
    dialect: Dialect = _dialect("", "generateContent", sse=True, query_key=query.get("key"))
    wrong = Problem(name="method", details={"method": request.method, "path": path})
    found = _PATH.fullmatch(path)
    if found is not None and found[2] == "countTokens":
        return dialect, _count(request, unquote(found[1])) if request.method == "POST" else wrong
    listed = _LIST.fullmatch(path)
    if listed is not None and (ours or listed[1] != "v1"):
        return dialect, _models(request, unquote(listed[2] or "")) if request.method == "GET" else wrong
    if ours or path.startswith("/v1beta/") or found is not None:
        return dialect, Problem(name="unknown_url", details={"method": request.method, "path": path})
    return None


def _count(request: Aside, model: str) -> ErrorReply | Problem:
    counted = gemini_request.count(request.body, model=model)
    if isinstance(counted, Problem):
        return counted
    if request.models is not None and model not in request.models:
        return Problem(name="model_not_found", details={}, model=model)
    return _told({"totalTokens": counted, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": counted}]})


def _models(request: Aside, one: str) -> ErrorReply | Problem:
    if one:
        if request.models is not None and one not in request.models:
            return Problem(name="model_not_found", details={}, model=one)
        return _told(_described(one))
    names = list(_SHOWN if request.models is None else request.models)
    start, size = (
        int(text) if text.isdecimal() else default
        for text, default in ((request.query.get("pageToken", ""), 0), (request.query.get("pageSize", ""), 50))
    )
    document: dict[str, Any] = {"models": [_described(name) for name in names[start : start + size]]}
    if start + size < len(names):
        document["nextPageToken"] = str(start + size)
    return _told(document)


def _told(document: dict[str, Any]) -> ErrorReply:
    return ErrorReply(status=200, headers={"content-type": "application/json; charset=UTF-8"}, body=json.dumps(document))


def _described(name: str) -> dict[str, Any]:
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "description": "Simulated",
        "inputTokenLimit": 128_000,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
        "temperature": 1,
        "maxTemperature": 2,
    }


def _document(ask: Ask, answer: Answer, fault: str | None) -> dict[str, Any]:
    """A whole answer."""
    document: dict[str, Any] = {
        "candidates": [_candidate(index, choice, fault if index == 0 else None) for index, choice in enumerate(answer.choices)]
    }
    if fault == "prompt_blocked":
        del document["candidates"]
    if fault == "prompt_blocked":
        document["promptFeedback"] = {"blockReason": "PROHIBITED_CONTENT", "safetyRatings": _SAFETY}
    if fault == "paused":
        document["continuationToken"] = ask.digest[:12].hex()
    document |= _tail(ask)
    if fault != "usage_missing":
        document["usageMetadata"] = _usage(answer, fault)
    return document


def _candidate(index: int, choice: Choice, fault: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": index}
    parts = _parts(choice, fault)
    if fault == "empty_length":
        candidate["content"] = {"role": "model"}  # thinking used up the cap
    elif parts:
        candidate["content"] = {"role": "model", "parts": parts}
    return candidate | _finish(choice, fault)


def _finish(choice: Choice, fault: str | None) -> dict[str, Any]:
    reason = _FINISH_OF_FAULT.get(fault or "", _FINISH[choice.finish])
    if reason is None:
        return {}
    return {"finishReason": reason, "safetyRatings": _SAFETY} if reason in ("SAFETY", "PROHIBITED_CONTENT") else {"finishReason": reason}


def _parts(choice: Choice, fault: str | None) -> list[dict[str, Any]]:
    """Parts of a candidate. What was thought is counted, and not shown unless that is asked for; it never is here."""
    if fault == "bad_arguments" or choice.refusal is not None:
        return []
    parts: list[dict[str, Any]] = [] if choice.text is None else [{"text": choice.text}]
    if choice.tool_call is not None:
        parts.append({"functionCall": {"name": choice.tool_call.name, "args": json.loads(choice.tool_call.arguments)}})
    return parts


def _pieces(ask: Ask, answer: Answer, fault: str | None) -> list[dict[str, Any]]:
    """The answer in the pieces of a stream: a few words each."""
    if fault == "prompt_blocked":
        return [_document(ask, answer, fault)]
    documents: list[dict[str, Any]] = []
    said = 0
    for index, choice in enumerate(answer.choices):
        own = fault if index == 0 else None
        parts = _parts(choice, own)
        spread = [{"text": piece} for part in parts if "text" in part for piece in _spread(part["text"])] + [
            part for part in parts if "text" not in part
        ]
        for at, part in enumerate(spread or [None]):
            candidate: dict[str, Any] = {"index": index}
            if part is not None:
                candidate["content"] = {"role": "model", "parts": [part]}
                said += count_text(part.get("text", ""))
            if at >= len(spread) - 1 and own != "stream_no_finish":
                candidate |= _finish(choice, own)
            documents.append({"candidates": [candidate], **_tail(ask)})
            if fault != "usage_missing":
                documents[-1]["usageMetadata"] = _counts(answer, said)
    if fault == "paused":
        documents[-1]["continuationToken"] = ask.digest[:12].hex()
    if fault != "usage_missing":
        documents[-1]["usageMetadata"] = _usage(answer, fault)
    if fault == "stream_first_empty":
        documents.insert(0, {**_tail(ask), "usageMetadata": _counts(answer, 0)})
    return documents


def _spread(text: str) -> list[str]:
    words = text.split(" ")
    return [(" " if at else "") + " ".join(words[at : at + 3]) for at in range(0, len(words), 3)]


def _tail(ask: Ask) -> dict[str, Any]:
    return {"modelVersion": ask.model, "responseId": ask.digest[:12].hex()}


def _counts(answer: Answer, said: int) -> dict[str, Any]:
    """Usage while the answer goes on."""
    numbers = {"promptTokenCount": answer.usage.input_tokens, "candidatesTokenCount": said, "totalTokenCount": answer.usage.input_tokens + said}
    return {name: number for name, number in numbers.items() if number}


def _usage(answer: Answer, fault: str | None) -> dict[str, Any]:
    usage = answer.usage
    numbers: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens,
        "cachedContentTokenCount": usage.cached_input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if fault == "usage_zero":
        return dict.fromkeys(numbers, 0)
    if fault == "usage_strings":
        return {name: str(number) for name, number in numbers.items() if number}
    return {name: number for name, number in numbers.items() if number}
