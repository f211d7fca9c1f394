"""Gemini's streamed responses: SSE frames of the whole response's shape, each a part of it, are joined to one.

The traps: there is no end marker, so a finish reason is the only sign of an end; usage comes in many frames and the last one holds, but after a cut nobody knows how much
further the server went, so then none is booked; an error in mid-stream may be bare JSON lines without `data:`, which are no events at all. Source: protocols C.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.nouns import Fault, Reply
from batchllm.core.wire import HttpReply
from batchllm.providers import gemini_reply
from batchllm.providers.bodies import read_json, text_of
from batchllm.providers.broken import NO_BODY, broken
from batchllm.providers.envelope import ErrorBody, error_of
from batchllm.providers.sse import Sse, is_events


class GeminiStream:
    """Reads one streamed response."""

    def __init__(self) -> None:
        self._sse = Sse()
        self._top: dict[str, Any] = {}
        self._candidate: dict[str, Any] = {}
        self._parts: list[Any] = []
        self._error: ErrorBody | None = None
        self._came = False
        """Whether any part of an answer came."""

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes, split anywhere; says whether they brought a part of the answer."""
        progress = False
        for _, data in self._sse.feed(chunk):
            progress = self._frame(read_json(data)) or progress
        return progress

    def _takes(self, came: HttpReply) -> bool:
        """Whether a whole body is the stream all the same: under another content type, or as one array of its frames (without `alt=sse`, which proxies lose)."""
        if not 200 <= came.status < 300:
            return False
        if is_events(came.body):
            self.feed(came.body)
            return True
        frames = read_json(came.body)
        if not isinstance(frames, list) or len(frames) < 2:
            return False
        for frame in frames:
            self._frame(frame)
        return True

    def _frame(self, frame: Any) -> bool:
        if isinstance(frame, list) and frame:
            frame = frame[0]
        if not isinstance(frame, dict):
            return False
        if frame.get("error"):
            # After the finish reason it takes nothing away from the answer.
            if self._error is None and not text_of(self._candidate.get("finishReason")):
                self._error = error_of(frame)
            return False
        self._top.update({name: value for name, value in frame.items() if name != "candidates" and value is not None})
        candidates = frame.get("candidates")
        if not (isinstance(candidates, list) and candidates and isinstance(candidates[0], dict)):
            return False
        candidate: Mapping[str, Any] = candidates[0]
        self._candidate.update({name: value for name, value in candidate.items() if name != "content" and value is not None})
        content = candidate.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        if not isinstance(parts, list):
            return False
        self._parts += parts
        progress = any(isinstance(part, dict) and (text_of(part.get("text")) or part.get("functionCall")) for part in parts)
        self._came |= progress
        return progress

    def end(self, came: HttpReply | Fault) -> Reply | Fault:
        """The outcome. A stream counts as whole once its finish reason was seen, whatever happened to the connection after that."""
        if isinstance(came, HttpReply) and (came.body or not 200 <= came.status < 300):
            if not self._takes(came):
                return gemini_reply.decode(came)
            came = HttpReply(status=came.status, body=b"", headers=came.headers)
        for _, data in self._sse.close():
            self._frame(read_json(data))
        reply = came if isinstance(came, HttpReply) else NO_BODY
        feedback = self._top.get("promptFeedback")
        blocked = isinstance(feedback, dict) and feedback.get("blockReason") and not self._candidate
        if self._error is None and blocked:
            return gemini_reply.answer(reply, self._top)
        if self._error is None and text_of(self._candidate.get("finishReason")):
            return gemini_reply.answer(reply, {**self._top, "candidates": [{**self._candidate, "content": {"parts": self._parts}}]})
        error = self._error or self._bare_error()
        return broken(
            came,
            error=error,
            usage=gemini_reply.usage_of(self._top.get("usageMetadata")) if error is not None else None,
            request_id=text_of(self._top.get("responseId")),
            began=self._came,
        )

    def _bare_error(self) -> ErrorBody | None:
        """An error that stands in the stream as bare JSON, on one line or on many."""
        data = read_json(self._sse.stray)
        return error_of(data) if isinstance(data, dict | list) else None
