"""Two jobs' answers to the same rows: how often they agree, what turned into what, what each cost.

The trap: texts are hardly ever equal, so agreement of whole outputs says little; `--on parsed.label` names what is to be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.core.money import PICO_PER_USD, text_usd
from batchllm.report.text import clean, columns, counted, rows
from batchllm.store.pairs import Side, pairs, sides
from batchllm.store.read import StoreReader

_FLIPS_SHOWN = 12
_VALUE_CHARACTERS = 40
_MISSING = object()


@dataclass(slots=True, kw_only=True)
class Figures:
    """What one job came to."""

    rows: int = 0
    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    cost_usd: float = 0.0
    unpriced: int = 0
    """Rows whose cost isn't known: they are not in the sum."""
    seconds: float = 0.0
    timed: int = 0
    output_tokens: int = 0
    measured: int = 0
    right: int = 0
    """Answers that equal the reference column."""

    def take(self, side: Side) -> None:
        """One more row."""
        self.rows += 1
        if side.status == "ok":
            self.ok += 1
            if side.latency_seconds is not None:
                self.seconds += side.latency_seconds
                self.timed += 1
            if side.output_tokens is not None:
                self.output_tokens += side.output_tokens
                self.measured += 1
        else:
            self.errors[side.error_code or "failed"] += 1
        if side.cost_usd is None:
            self.unpriced += 1
        else:
            self.cost_usd += side.cost_usd

    def as_dict(self, *, gold: bool, compared: int) -> dict[str, Any]:
        """For `--json`."""
        return {
            "rows": self.rows,
            "ok": self.ok,
            "errors": dict(self.errors),
            "valid": self.ok / self.rows if self.rows else None,
            "cost_usd": None if self.unpriced == self.rows else self.cost_usd,
            "latency_seconds": self.seconds / self.timed if self.timed else None,
            "output_tokens": self.output_tokens / self.measured if self.measured else None,
            **({"right": self.right, "accuracy": self.right / compared if compared else None} if gold else {}),
        }


@dataclass(slots=True, kw_only=True)
class Difference:
    """The whole comparison."""

    on: str
    a: Figures = field(default_factory=Figures)
    b: Figures = field(default_factory=Figures)
    both: int = 0
    """Rows that both have finished."""
    compared: int = 0
    """Of them, those that both have an answer for."""
    agreed: int = 0
    flips: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(value in a, value in b), as JSON, where they differ."""
    with_gold: int = 0
    fixed: int = 0
    """Wrong in a, right in b."""
    broken: int = 0


def value_of(side: Side, on: str) -> Any:
    """The value at a path: `output`, `parsed`, `parsed.label`, `parsed.items.0`; `_MISSING` where there is none."""
    head, *steps = on.split(".")
    value: Any = side.parsed if head == "parsed" else side.output
    if head == "parsed" and value is None:
        return _MISSING
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return _MISSING
    return value


def check_path(on: str) -> str:
    """The path, if it can be one. Raises SpecError."""
    head, _, rest = on.partition(".")
    if head not in {"parsed", "output"} or (head == "output" and rest) or not all(on.split(".")):
        raise SpecError(Problem(file="--on", message=f"expected output, parsed or a field such as parsed.label, got {on!r}"))
    return on


def difference(reader: StoreReader, other: StoreReader, *, on: str | None, gold: str | None) -> tuple[Difference, Iterator[tuple[Side, Side]]]:
    """The comparison, and once more the pairs whose values differ, to be written. `on` None: `parsed` where both jobs have it, else `output`."""
    path = check_path(on) if on is not None else "parsed" if _parses(reader) and _parses(other) else "output"
    found = Difference(on=path)
    for side in sides(reader):
        found.a.take(side)
    for side in sides(other):
        found.b.take(side)
    has_field, has_value = gold is None, False
    for a, b in pairs(reader, other.path):
        found.both += 1
        has_field = has_field or (gold in (a.input or {})) or (gold in (b.input or {}))
        if a.status != "ok" or b.status != "ok":
            continue
        found.compared += 1
        first, second = value_of(a, path), value_of(b, path)
        has_value = has_value or first is not _MISSING or second is not _MISSING
        if _same(first, second):
            found.agreed += 1
        else:
            found.flips[_shown(first), _shown(second)] += 1
        if gold is not None:
            _against_gold(found, a, b, first, second, gold)
    if not has_field and found.both:
        raise SpecError(Problem(file="--gold", message=f"no row has kept a column {gold!r}; name it under output.keep and run again"))
    if found.compared and not has_value:
        raise SpecError(Problem(file="--on", message=f"no answer of either job has {path!r}; {_there(reader)}"))
    return found, _differing(reader, other.path, path)


def _there(reader: StoreReader) -> str:
    """What an answer has, in words."""
    found = reader.all("SELECT parsed FROM results WHERE parsed IS NOT NULL LIMIT 1")
    parsed = json.loads(found[0][0]) if found else None
    if isinstance(parsed, dict):
        return f"`parsed` has {', '.join(map(str, parsed))}"[:200]
    return "they aren't parsed: compare `output`" if parsed is None else "`parsed` is one plain value: compare `parsed`"


def _parses(reader: StoreReader) -> bool:
    return bool(reader.all("SELECT 1 FROM results WHERE parsed IS NOT NULL LIMIT 1"))


def _differing(reader: StoreReader, other: Path, path: str) -> Iterator[tuple[Side, Side]]:
    for a, b in pairs(reader, other):
        if a.status == "ok" and b.status == "ok" and not _same(value_of(a, path), value_of(b, path)):
            yield a, b


def _against_gold(found: Difference, a: Side, b: Side, first: Any, second: Any, gold: str) -> None:
    kept = a.input if gold in (a.input or {}) else b.input
    truth = (kept or {}).get(gold)
    if truth is None:
        return
    found.with_gold += 1
    right = (_is(first, truth), _is(second, truth))
    found.a.right += right[0]
    found.b.right += right[1]
    found.fixed += right == (False, True)
    found.broken += right == (True, False)


def _is(value: Any, truth: Any) -> bool:
    """As text: a CSV's cells are nothing else."""
    if value is _MISSING:
        return False
    return _text(value) == _text(truth)


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else json.text(value)


def _same(first: Any, second: Any) -> bool:
    if first is _MISSING or second is _MISSING:
        return first is second
    return json.canonical(first) == json.canonical(second)


def _shown(value: Any) -> str:
    return "(none)" if value is _MISSING else value if isinstance(value, str) else json.text(value)


def _part(number: int, of: int) -> str:
    return f"{number:,} ({number / of:.1%})" if of else f"{number:,}"


def difference_lines(found: Difference, *, names: tuple[str, str], gold: str | None) -> Iterator[str]:
    """For a terminal."""
    yield f"{rows(found.both)} in both, {found.compared:,} answered by both, compared on {found.on}"
    yield from columns(
        [
            ("agree", _part(found.agreed, found.compared)),
            ("differ", _part(found.compared - found.agreed, found.compared)),
        ]
    )
    if gold is not None:
        yield f"  against {clean(gold)} ({rows(found.with_gold)}): {found.fixed:,} mended, {found.broken:,} broken from a to b"
    yield ""
    yield from columns(
        [
            ("", "job", "rows", "ok", *(("right",) if gold is not None else ()), "cost", "a row", "latency", "tokens out"),
            *(_cells(word, name, figures, found, gold) for word, name, figures in zip("ab", names, (found.a, found.b), strict=True)),
        ],
        right=frozenset(range(2, 9)),
    )
    for word, figures in (("a", found.a), ("b", found.b)):
        if figures.errors:
            yield f"  {word} failed: {', '.join(f'{code} {number:,}' for code, number in figures.errors.most_common())}"
    if found.flips and found.flips.most_common(1)[0][1] > 1:
        yield ""
        shown = found.flips.most_common(_FLIPS_SHOWN)
        yield from columns(
            [(f"{number:,}", clean(first, _VALUE_CHARACTERS), "->", clean(second, _VALUE_CHARACTERS)) for (first, second), number in shown],
            right=frozenset({0}),
        )
        if len(found.flips) > len(shown):
            yield f"  and {counted(len(found.flips) - len(shown), 'other change')}"


def _cells(word: str, name: str, figures: Figures, found: Difference, gold: str | None) -> tuple[str, ...]:
    priced = figures.rows - figures.unpriced
    return (
        word,
        clean(name),
        f"{figures.rows:,}",
        _part(figures.ok, figures.rows),
        *((_part(figures.right, found.with_gold),) if gold is not None else ()),
        _usd(figures.cost_usd) if priced else "unknown",
        _usd(figures.cost_usd / priced) if priced else "",
        f"{figures.seconds / figures.timed:.2f} s" if figures.timed else "",
        f"{figures.output_tokens / figures.measured:.0f}" if figures.measured else "",
    )


def _usd(dollars: float) -> str:
    return text_usd(round(dollars * PICO_PER_USD))


def as_dict(found: Difference, *, names: tuple[str, str], gold: str | None) -> dict[str, Any]:
    """For `--json`."""
    told: dict[str, Any] = {
        "on": found.on,
        "both": found.both,
        "compared": found.compared,
        "agreed": found.agreed,
        "agreement": found.agreed / found.compared if found.compared else None,
        "flips": [{"a": first, "b": second, "rows": number} for (first, second), number in found.flips.most_common(100)],
        "a": {"job": names[0], **found.a.as_dict(gold=gold is not None, compared=found.with_gold)},
        "b": {"job": names[1], **found.b.as_dict(gold=gold is not None, compared=found.with_gold)},
    }
    if gold is not None:
        told["gold"] = {"column": gold, "rows": found.with_gold, "fixed": found.fixed, "broken": found.broken}
    return told
