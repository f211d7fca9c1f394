"""JSON out of a model's text: alone, in one fenced block, or alone between sentences - never guessed.

The trap: models wrap JSON in fences and politeness, and repairing broken JSON invents data. So wrappings are taken off only where one value is left
over; a text with two values, or with one that doesn't parse, holds no answer.
"""

from __future__ import annotations

import json as stdlib
import re
from typing import Any, NoReturn

from batchllm.core import json

_FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[ \t]*\r?\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_FAILED_STARTS = 100
"""Brackets that begin no JSON after which a text is taken for one without any."""
_SHOWN = 80


class NotJSON(ValueError):  # noqa: N818 - it is data a moment later
    """No JSON value, or more than one; the text says which."""


def extract(text: str, *, objects_only: bool = False) -> Any:
    """The one JSON value of a text; between sentences it must be an object (or, unless `objects_only`, a list). Raises `NotJSON`.

    Leading `<think>` blocks of open models are passed over.
    """
    value = _extracted(text, objects_only=objects_only)
    # Counted first: only a model that repeats itself comes near it.
    if text.count("{") + text.count("[") > json.DEEPEST and json.is_too_deep(value):
        raise NotJSON(f"the JSON is nested more than {json.DEEPEST} levels deep")
    return value


def _extracted(text: str, *, objects_only: bool) -> Any:
    text = text.lstrip("\ufeff")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        whole = error
    thought = _THOUGHT.match(text)
    if thought is not None:
        text = text[thought.end() :]
    found = [block for block in _fenced(text) if block is not _NOTHING] or _between(text, objects_only=objects_only)
    if len(found) == 1:
        return found[0]
    if found:
        raise NotJSON(f"the text holds {len(found)} JSON values where one was asked for")
    if not text.strip():
        raise NotJSON("the answer is empty")
    raise NotJSON(f"not JSON ({whole.msg}); it begins with {_start(text)!r}")


_NOTHING = object()


def _start(text: str) -> str:
    words = " ".join(text[: 4 * _SHOWN].split())
    return words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "..."


def _fenced(text: str) -> list[Any]:
    """The values of fenced blocks that are JSON by their label or hold nothing else."""
    if "```" not in text:
        return []
    return [_loaded(block[2]) for block in _FENCE.finditer(text) if block[1].lower() in {"", "json", "jsonc", "json5"}]


def _loaded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return _NOTHING


def _refuse(word: str) -> NoReturn:
    raise ValueError(word)


_DECODER = stdlib.JSONDecoder(parse_constant=_refuse)
_START = re.compile(r"[{\[]")
_MEANT = re.compile(r"""\{\s*["}]|\[\s*["{\[\d\-\]]""")
"""How a value begins. One that begins so and can't be read is broken, and what could be read inside it is only a part."""


def _between(text: str, *, objects_only: bool) -> list[Any]:
    """The outermost values from left to right; at most two are looked for."""
    found: list[Any] = []
    place = failed = 0
    while len(found) < 2 and failed < _FAILED_STARTS and (start := _START.search(text, place)) is not None:
        try:
            _, place = _DECODER.raw_decode(text, start.start())
            # Once more by the decoder that the rest of the house uses: numbers then mean the same, however they were wrapped.
            value = json.loads(text[start.start() : place])
        except (ValueError, RecursionError):
            if _MEANT.match(text, start.start()):
                return []
            failed += 1
            place = start.end()
        else:
            if isinstance(value, dict) or not objects_only:
                found.append(value)
    return found
