"""A stream's reader for an endpoint that has no stream: it waits for the end and decodes the whole."""

from __future__ import annotations

from collections.abc import Callable

from batchllm.core.nouns import Fault, Reply
from batchllm.core.wire import HttpReply


class Whole:
    """Reads one answer that isn't streamed."""

    def __init__(self, decode: Callable[[HttpReply], Reply | Fault]) -> None:
        self._decode = decode
        self._parts: list[bytes] = []

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes."""
        self._parts.append(chunk)
        return bool(chunk.strip())

    def end(self, came: HttpReply | Fault) -> Reply | Fault:
        """The outcome."""
        if isinstance(came, Fault):
            return came
        body = came.body or b"".join(self._parts)
        return self._decode(HttpReply(status=came.status, body=body, headers=came.headers))
