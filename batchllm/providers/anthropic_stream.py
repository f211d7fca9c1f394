"""Anthropic's streamed messages: named events become the same message that a whole reply would have been.

The traps: an `error` event comes with HTTP 200; usage is cumulative, and the one in `message_start` knows of no output yet, so a stream that was cut before its
`message_delta` has no usage that could be booked; unknown events and pings are no progress. Source: protocols B.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchllm.core.nouns import Fault, Reply
from batchllm.core.wire import HttpReply
from batchllm.providers import anthropic_reply
from batchllm.providers.bodies import read_json, text_of
from batchllm.providers.broken import NO_BODY, broken
from batchllm.providers.envelope import ErrorBody, error_of
from batchllm.providers.sse import Sse, is_events

_PIECES = {"text_delta": ("text", "text"), "input_json_delta": ("partial_json", "input"), "thinking_delta": ("thinking", "thinking")}
"""Kind of delta: where its piece is, and the field of the block that the pieces make up."""
_MOST_BLOCKS = 100_000


class AnthropicStream:
    """Reads one streamed message."""

    def __init__(self) -> None:
        self._sse = Sse()
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._pieces: dict[tuple[int, str], list[str]] = {}
        self._usage: dict[str, Any] = {}
        self._knows_output = False
        self._error: ErrorBody | None = None
        self._came = False
        """Whether any part of an answer came."""

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes, split anywhere; says whether they brought a part of the answer."""
        progress = False
        for _, data in self._sse.feed(chunk):
            progress = self._event(data) or progress
        return progress

    def _event(self, data: str) -> bool:
        event = read_json(data)
        if not isinstance(event, dict):
            return False
        progress = False
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                if isinstance(message, dict):
                    self._message = dict(message)
                    self._learn(message.get("usage"))
            case "content_block_start":
                progress = self._start(event)
            case "content_block_delta":
                progress = self._delta(event)
            case "message_delta":
                delta = event.get("delta")
                if isinstance(delta, dict):
                    self._message.update({name: value for name, value in delta.items() if value is not None})
                self._knows_output |= self._learn(event.get("usage"))
            case "error":
                self._fail(event)
            case None if event.get("error"):
                # A gateway's own error frame.
                self._fail(event)
        self._came |= progress
        return progress

    def _fail(self, event: Mapping[str, Any]) -> None:
        """An error after the stop reason takes nothing away from the answer."""
        if self._error is None and not text_of(self._message.get("stop_reason")):
            self._error = error_of(event)

    def _learn(self, usage: Any) -> bool:
        """Counts are cumulative: the latest of each holds."""
        if not isinstance(usage, dict):
            return False
        self._usage.update({name: value for name, value in usage.items() if value is not None})
        return usage.get("output_tokens") is not None

    def _start(self, event: Mapping[str, Any]) -> bool:
        index, block = event.get("index"), event.get("content_block")
        if not isinstance(index, int) or not isinstance(block, dict) or len(self._blocks) >= _MOST_BLOCKS:
            return False
        self._blocks[index] = dict(block)
        for name in ("text", "thinking"):
            if text_of(block.get(name)):
                self._pieces.setdefault((index, name), []).append(block[name])
        return block.get("type") in ("tool_use", "redacted_thinking") or bool(self._pieces.get((index, "text")))

    def _delta(self, event: Mapping[str, Any]) -> bool:
        index, delta = event.get("index"), event.get("delta")
        if not isinstance(index, int) or not isinstance(delta, dict):
            return False
        kind = delta.get("type")
        if kind == "signature_delta":
            self._blocks.setdefault(index, {"type": "thinking"})["signature"] = delta.get("signature")
            return True
        if not isinstance(kind, str) or kind not in _PIECES:
            return False
        source, name = _PIECES[kind]
        piece = text_of(delta.get(source))
        if piece is None:
            return False
        if index not in self._blocks:
            self._blocks[index] = {"type": {"input": "tool_use"}.get(name, name)}
        self._pieces.setdefault((index, name), []).append(piece)
        return True

    def end(self, came: HttpReply | Fault) -> Reply | Fault:
        """The outcome. A stream counts as whole once its stop reason was seen, whatever happened to the connection after that."""
        if isinstance(came, HttpReply) and (came.body or not 200 <= came.status < 300):
            if not (200 <= came.status < 300 and is_events(came.body)):
                return anthropic_reply.decode(came)
            # A stream under another content type.
            self.feed(came.body)
            came = HttpReply(status=came.status, body=b"", headers=came.headers)
        for _, data in self._sse.close():
            self._event(data)
        if self._error is None and text_of(self._message.get("stop_reason")):
            return anthropic_reply.answer(came if isinstance(came, HttpReply) else NO_BODY, self._whole())
        return broken(
            came,
            error=self._error,
            usage=anthropic_reply.usage_of(self._usage) if self._knows_output else None,
            request_id=text_of(self._message.get("id")),
            began=self._came,
        )

    def _whole(self) -> dict[str, Any]:
        """The message as a whole reply would have been."""
        for (index, name), pieces in self._pieces.items():
            self._blocks[index][name] = "".join(pieces)
        return {**self._message, "content": [self._blocks[index] for index in sorted(self._blocks)], "usage": self._usage}
