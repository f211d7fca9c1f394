"""A push parser of JSON lines: bytes in, in any pieces; whole lines out. Blank lines are passed over, and no piece is copied more than once."""

from __future__ import annotations


class Lines:
    """One stream of lines."""

    __slots__ = ("_line",)

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """Pieces of the line that isn't over yet."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that are complete now."""
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            if chunk:
                self._line.append(chunk)
            return []
        lines[0] = b"".join([*self._line, lines[0]])
        rest = lines.pop()
        self._line = [rest] if rest else []
        return [line for line in lines if line and not line.isspace()]

    def close(self) -> list[bytes]:
        """The last line, when no newline ended it; it may be cut."""
        line, self._line = b"".join(self._line), []
        return [line] if line.strip() else []
