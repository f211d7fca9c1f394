"""The text of a streamed answer while it comes, for a person who watches: every wire's events in one small reader.

It is for the eye only: what the answer is, the codec's own decoder says. What is not understood is passed over.
"""

from __future__ import annotations

from typing import Any

from batchllm.core.json import JSONDecodeError, loads
from batchllm.providers.sse import Sse


class Deltas:
    """One stream, of server-sent events or of JSON lines."""

    def __init__(self) -> None:
        self._sse = Sse()
        self._lines: bool | None = None
        self._rest = b""

    def feed(self, chunk: bytes) -> str:
        """Takes the next bytes, split anywhere; the text that they brought."""
        if self._lines is None and chunk.strip():
            # JSON lines (Ollama) begin with a brace, events with a field's name or a colon.
            self._lines = chunk.lstrip().startswith(b"{")
        if not self._lines:
            return "".join(_text(data) for _, data in self._sse.feed(chunk))
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return "".join(map(_text, lines))


def _text(data: str | bytes) -> str:
    try:
        event = loads(data)
    except JSONDecodeError:
        return ""
    found = _found(event) if isinstance(event, dict) else None
    return found if isinstance(found, str) else ""


def _found(event: dict[str, Any]) -> Any:
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        delta = choices[0].get("delta")
        return delta.get("content") if isinstance(delta, dict) else choices[0].get("text")
    kind = event.get("type")
    if kind == "response.output_text.delta":
        return event.get("delta")
    if kind == "content_block_delta":
        delta = event.get("delta")
        return delta.get("text") if isinstance(delta, dict) else None
    candidates = event.get("candidates")
    if isinstance(candidates, list) and candidates and isinstance(candidates[0], dict):
        content = candidates[0].get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        texts = [part.get("text", "") for part in parts or () if isinstance(part, dict) and not part.get("thought")]
        return "".join(text for text in texts if isinstance(text, str))
    message = event.get("message")
    return message.get("content") if isinstance(message, dict) else event.get("response")
