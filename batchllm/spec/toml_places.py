"""Where each key and value of a TOML text stands; `tomllib` gives values only.

The text is known to be valid TOML, so this scanner trusts it: it finds the borders of keys, strings, arrays and inline tables and reads nothing else.
Should it lose its way all the same, what it has found so far is returned: places serve messages and nothing more.
"""

from __future__ import annotations

import contextlib
import re
import tomllib

from batchllm.spec.findings import Path, Place

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"\d{4}-\d\d-\d\d[ ]\d\d:[^,\]}\s#]*|[^,\]}\s#]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}' + r"|'''(?:[^']|'(?!''))*'{3,5}" + r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'",
    re.DOTALL,
)


def places_of(text: str) -> dict[Path, Place]:
    """Places by path, 1-based; `()` is the top."""
    scanner = _Scanner(text)
    with contextlib.suppress(AssertionError, IndexError, tomllib.TOMLDecodeError, RecursionError):
        scanner.document()
    return scanner.places


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, Place] = {(): Place(line=1, column=1, key_line=1, key_column=1)}
        self._last_of: dict[Path, int] = {}  # the newest index of each array of tables

    def document(self) -> None:
        table: Path = ()
        self.skip(_SPACE)
        while self.at < len(self.text):
            table = self.header() if self.text[self.at] == "[" else self.pair(table)
            self.skip(_SPACE)

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return match[0]

    def take(self, character: str) -> bool:
        if self.text.startswith(character, self.at):
            self.at += len(character)
            return True
        return False

    def header(self) -> Path:
        """`[a.b]` or `[[a.b]]`; returns the table that the next pairs belong to."""
        array = self.take("[[") or not self.take("[")
        self.skip(_BLANK)
        key_at = self.at
        names = self.names()
        assert self.take("]]" if array else "]")
        path: Path = ()
        for position, name in enumerate(names):
            path = (*path, name)
            if array and position == len(names) - 1:
                self._last_of[path] = self._last_of.get(path, -1) + 1
            self.mark(path, key_at, key_at)
            if path in self._last_of:
                path = (*path, self._last_of[path])
                self.mark(path, key_at, key_at)
        return path

    def pair(self, table: Path) -> Path:
        key_at = self.at
        names = self.names()
        assert self.take("=")
        self.skip(_BLANK)
        for end in range(1, len(names)):
            self.mark((*table, *names[:end]), key_at, key_at)
        self.value((*table, *names), key_at)
        return table

    def names(self) -> list[str]:
        names = []
        while True:
            self.skip(_BLANK)
            if self.text[self.at] in "\"'":
                names.append(str(tomllib.loads("k = " + self.skip(_STRING))["k"]))
            else:
                names.append(self.skip(_BARE))
            self.skip(_BLANK)
            if not self.take("."):
                return names

    def value(self, path: Path, key_at: int) -> None:
        self.mark(path, self.at, key_at)
        character = self.text[self.at]
        if character in "\"'":
            self.skip(_STRING)
        elif self.take("["):
            index = 0
            self.skip(_SPACE)
            while not self.take("]"):
                self.value((*path, index), self.at)
                index += 1
                self.skip(_SPACE)
                self.take(",")
                self.skip(_SPACE)
        elif self.take("{"):
            self.skip(_SPACE)
            while not self.take("}"):
                self.pair(path)
                self.skip(_SPACE)
                self.take(",")
                self.skip(_SPACE)
        else:
            self.skip(_SCALAR)

    def mark(self, path: Path, value_at: int, key_at: int) -> None:
        if path not in self.places:
            line, column = self.line_and_column(value_at)
            key_line, key_column = self.line_and_column(key_at)
            self.places[path] = Place(line=line, column=column, key_line=key_line, key_column=key_column)

    def line_and_column(self, at: int) -> tuple[int, int]:
        return self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)
