"""A push parser of server-sent events: bytes in, in any pieces; events out.

The traps: a piece may end inside a UTF-8 sequence or between CR and LF, a server may leave out the last blank line or write bare JSON without `data:` (Gemini's
errors in mid-stream), and joining the rest of a long line to every new piece would take quadratic time. Source: the event stream format of the HTML standard,
protocols E rule 4.
"""

from __future__ import annotations

_KEPT_STRAY_BYTES = 1 << 20
_FIELDS = frozenset({b"data", b"event", b"id", b"retry"})
_BOM = b"\xef\xbb\xbf"
_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")


def is_events(body: bytes) -> bool:
    """Whether a body that came under another content type is an event stream all the same."""
    return body[:64].removeprefix(_BOM).lstrip().startswith(_STARTS)


class Sse:
    """One stream. Comments, blank lines and unknown fields are passed over; bytes that are no UTF-8 become U+FFFD."""

    __slots__ = ("_after_cr", "_begun", "_data", "_event", "_line", "_stray", "_stray_bytes")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """Pieces of the line that isn't over yet."""
        self._after_cr = False
        self._begun = False
        self._event: bytes | None = None
        self._data: list[bytes] = []
        self._stray: list[bytes] = []
        self._stray_bytes = 0

    @property
    def stray(self) -> bytes:
        """The lines (at most 1 MiB) that were no fields of an event stream: an error in plain JSON, or a body that isn't a stream at all."""
        return b"\n".join(self._stray)

    def feed(self, chunk: bytes) -> list[tuple[str | None, str]]:
        """The events that are complete now, as (event, data); event is None where the stream names none, data its lines joined by newlines."""
        if self._after_cr and chunk:
            # The CR has ended its line already; its LF may come only now.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if not chunk:
            return []
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            self._line.append(chunk)
            return []
        if self._line:
            lines[0] = b"".join([*self._line, lines[0]])
        rest = lines.pop()
        self._line = [rest] if rest else []
        events: list[tuple[str | None, str]] = []
        for line in lines:
            self._take(line, events)
        return events

    def close(self) -> list[tuple[str | None, str]]:
        """The event that was begun when the stream ended without a blank line. It may be cut: whoever reads it must expect half a JSON."""
        events: list[tuple[str | None, str]] = []
        if self._line:
            line, self._line = b"".join(self._line), []
            self._take(line, events)
        self._take(b"", events)
        return events

    def _take(self, line: bytes, events: list[tuple[str | None, str]]) -> None:
        if not self._begun:
            self._begun = True
            line = line.removeprefix(_BOM)
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line:
            if self._data:
                data = b"\n".join(self._data) if len(self._data) > 1 else self._data[0]
                if data:
                    events.append((None if self._event is None else self._event.decode(errors="replace"), data.decode(errors="replace")))
                self._data = []
            self._event = None
        elif line.startswith(b"event:"):
            self._event = line[6:].removeprefix(b" ") or None
        elif not line.startswith(b":"):
            self._other(line)

    def _other(self, line: bytes) -> None:
        """A field without a colon, `id`, `retry`, or a line that belongs to no event stream."""
        name = line.partition(b":")[0]
        if name == b"data":
            self._data.append(b"")
        elif name not in _FIELDS and self._stray_bytes < _KEPT_STRAY_BYTES:
            self._stray.append(line[:_KEPT_STRAY_BYTES])
            self._stray_bytes += len(line)
