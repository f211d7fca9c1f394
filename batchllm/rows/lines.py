"""Bytes to lines in blocks: fast, flat in memory, and no line however long can take the machine's memory.

The trap: a buffered `read(n)` on a pipe waits until n bytes are there, so a slow stdin would look dead, and on a damaged .gz it throws away what it has
already unpacked. `read1` returns what there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import BinaryIO

from batchllm.core.errors import Problem, SpecError
from batchllm.rows.files import broken_stream

LINE_BYTES = 64 << 20
"""A longer line is a bad row: no model takes such a prompt, and the file is probably no line-based one."""

_BLOCK = 256 << 10
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True, slots=True)
class TooLong:
    """Stands for a line above the cap, of which only size and digest were kept."""

    size: int
    digest: str


Line = bytes | TooLong


def blocks(stream: BinaryIO, name: str, *, cap: int = LINE_BYTES, decode: Callable[[bytes], bytes] | None = None) -> Iterator[list[Line]]:
    """Lists of complete lines without their newline, each list as soon as it is there.

    A byte order mark at the start is dropped. `decode` turns other encodings into UTF-8 before lines are cut. Raises `SpecError` naming file and line
    where the stream is damaged or cut short; the lines before it have been given.
    """
    broken = broken_stream()
    parts: list[bytes] = []
    size = 0
    long: _Long | None = None
    first = True
    line = 0
    while True:
        try:
            data = stream.read1(_BLOCK)  # type: ignore[attr-defined]  # every buffered binary stream has it, typing.BinaryIO doesn't say so
        except broken as error:
            raise SpecError(
                Problem(file=name, line=line + 1, message=f"the input breaks off here, the file is damaged or cut short ({error}); write it anew")
            ) from error
        if first and data:
            first = False
            if decode is None and data.startswith(_UTF16):
                raise SpecError(Problem(file=name, message="looks like UTF-16; save it as UTF-8 (for CSV `encoding: utf-16` will do too)"))
            data = data.removeprefix(b"\xef\xbb\xbf")
        ended = not data
        if decode is not None:
            try:
                data = decode(data)
            except UnicodeDecodeError as error:
                raise SpecError(Problem(file=name, line=line + 1, message=f"is not in the encoding that the spec names ({error.reason})")) from error
        lines: list[Line] = list(data.split(b"\n"))
        # All pieces but the last end a line; the first one also ends what earlier blocks began.
        last = lines.pop()
        assert isinstance(last, bytes)
        if lines:
            head = lines[0]
            assert isinstance(head, bytes)
            if long is not None:
                lines[0] = long.end(head)
                long = None
            elif parts:
                lines[0] = _Long(parts).end(head) if size + len(head) > cap else b"".join((*parts, head))
            parts, size = [], 0
            if cap < _BLOCK:
                # Only then can a line within one block be too long; the cap holds wherever blocks happen to end.
                lines = [_Long([item]).end(b"") if isinstance(item, bytes) and len(item) > cap else item for item in lines]
            line += len(lines)
            yield lines
        if last:
            if long is not None:
                long.add(last)
            else:
                parts.append(last)
                size += len(last)
                if size > cap:
                    long = _Long(parts)
                    parts, size = [], 0
        if ended:
            if long is not None:
                yield [long.end(b"")]
            elif parts:
                yield [b"".join(parts)]
            return


class _Long:
    """A line above the cap: swallowed, hashed, counted."""

    def __init__(self, parts: list[bytes]) -> None:
        self._hash = sha256()
        self._size = 0
        for part in parts:
            self.add(part)

    def add(self, part: bytes) -> None:
        self._hash.update(part)
        self._size += len(part)

    def end(self, part: bytes) -> TooLong:
        self.add(part)
        return TooLong(size=self._size, digest=self._hash.hexdigest()[:32])
