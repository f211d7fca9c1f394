"""The rows of a plan: what they say, what they ask the provider to do to them, and how a file changes while nobody runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.verify.plan import Line

_PERMANENT = ("invalid_request", "content_policy", "content_filter", "refusal", "413", "context_length", "oversize")
_ODD = ("usage_missing", "usage_zero", "usage_cached", "usage_cache_write", "finish_null", "length", "empty")
_HEALED = ("500*1", "503_retry_after*2", "429_bare*3", "reset_mid*2", "stall*1", "504*1", "502*2", "half_json*1", "slow_down*1")
_HEALED_STREAM = ("stream_error*1", "stream_no_finish*1", "stream_cut*2", "stream_stall_comments*1", "reset_mid*2", "503_retry_after*2")
_BAD = ("bad_json", "schema_violation")
_LONELY = (*_BAD, "oversize", "length", "empty")
_WORDS = ("hello", "there", "again", "caf\u00e9", "one two", "\u4f60\u597d")
_MOST_COPIES = 15
_FIRST = 25
"""The first rows decide what the input looks like; the odd ones come later, and those are moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """How this plan's rows are drawn."""

    named: bool
    stream: bool
    formed: bool
    """Whether answers must have a form."""

    def draw(self, rng: random.Random, count: int) -> list[Line]:
        """The input."""
        lines: list[Line] = [self.row(rng, number) for number in range(count)]
        for _ in range(rng.choice((0, 0, 2, 5))):
            place = rng.randrange(min(_FIRST + 5, count - 1), count)
            lines[place] = rng.choice(
                (
                    '{"text": "cut',
                    "[1, 2]",
                    {"custom_id": f"x{place}", "tag": 1},
                    lines[rng.randrange(count)],
                )
            )
        return lines

    def row(self, rng: random.Random, number: int) -> dict[str, Any]:
        """One record."""
        row: dict[str, Any] = {"text": self._text(rng, number), "tag": number % 7}
        return {"custom_id": f"r{number}", **row} if self.named else row

    def _text(self, rng: random.Random, number: int) -> str:
        words = f"row {number} says " + " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 12)))
        mark = self._mark(rng)
        return words if mark is None else f"{words} [[sim:{mark}]]"

    def _mark(self, rng: random.Random) -> str | None:
        luck = rng.random()
        if luck < 0.01:
            return rng.choice(_PERMANENT)
        if luck < 0.02:
            # A stream without a finish reason is no answer, whole ones are taken: a calm run, which doesn't stream, would say otherwise.
            return rng.choice([odd for odd in _ODD if not (self.stream and odd == "finish_null")])
        if luck < 0.04:
            return rng.choice(_HEALED_STREAM if self.stream else _HEALED)
        # Every time, not the first time only: what a model is told of its answer, and so what it answers next, must not depend on who died in between.
        return rng.choice(_BAD) if self.formed and luck < 0.12 else None

    def edited(self, rng: random.Random, present: Sequence[Line]) -> list[Line]:
        """The input after somebody worked on it: rows taken out, put in, moved, reworded."""
        lines = list(present)
        for _ in range(rng.randrange(1, 4)):
            place = rng.randrange(_FIRST, len(lines)) if len(lines) > 40 else len(lines)
            what = rng.choice(("out", "in", "move", "reword"))
            if what == "out" and len(lines) > 60:
                del lines[place : place + rng.randrange(1, 20)]
            elif what == "in":
                lines[place:place] = [self.row(rng, rng.randrange(10_000, 99_999)) for _ in range(rng.randrange(1, 10))]
            elif what == "move":
                lines = [*lines[:_FIRST], *lines[place:], *lines[_FIRST:place]]
            else:
                for at in range(place, min(place + 5, len(lines))):
                    line = lines[at]
                    if isinstance(line, dict) and "text" in line:
                        lines[at] = {**line, "text": f"{line['text']} (again {rng.randrange(1000)})"}
        return lines


def repeat(rng: random.Random, lines: list[Line], *, formed: bool) -> None:
    """Many rows ask the same: a few texts for all, some of them once and some very often.

    Not those that each row fails with for itself: twenty of them in a row would look like a provider that refuses everything. Nor, where an answer may be bad by
    its text alone, that many copies of one.
    """
    texts = [
        line["text"] for line in lines if isinstance(line, dict) and "text" in line and not any(f"[[sim:{mark}]]" in line["text"] for mark in _LONELY)
    ]
    most = _MOST_COPIES if formed else len(lines)
    some = rng.sample(texts, max(1, int(len(texts) * rng.choice((0.05, 0.3, 0.7)))))
    copies: Counter[str] = Counter()
    for place, line in enumerate(lines):
        if isinstance(line, dict) and "text" in line:
            text = some[int(len(some) * rng.random() ** 3)]
            copies[text] += 1
            lines[place] = {**line, "text": text} if copies[text] <= most else line
