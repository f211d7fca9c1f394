"""Ollama's progress while it pulls or creates a model: JSON lines, in any pieces.

The trap: a failure comes as a line of its own with HTTP 200, and a stream that ends without `success` is no success (protocols D.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from batchllm.providers.bodies import read_json, text_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of progress; sizes in bytes."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


class Pulling:
    """A `StreamReader` that tells each step."""

    def __init__(self, tell: Callable[[Step], None]) -> None:
        self._tell = tell
        self._rest = b""
        self.error: str | None = None
        self.done = False

    def feed(self, chunk: bytes) -> bool:
        """Takes the next bytes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._line(line)
        return bool(lines)

    def end(self) -> None:
        """The last line may come without its end."""
        rest, self._rest = self._rest, b""
        self._line(rest)

    def _line(self, line: bytes) -> None:
        data = read_json(line) if line.strip() else None
        if not isinstance(data, dict):
            return
        error = data.get("error")
        if error:
            self.error = error if isinstance(error, str) else str(error.get("message", error)) if isinstance(error, dict) else str(error)
            return
        status = text_of(data.get("status"))
        if status is None:
            return
        self.done = self.done or status == "success"
        self._tell(Step(status=status, digest=text_of(data.get("digest")), total=_bytes(data.get("total")), completed=_bytes(data.get("completed"))))


def _bytes(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
