"""Results as lines: JSONL and CSV. What is written is a stream of `Line`s, so that memory stays flat.

The trap of CSV: its header comes first, so its columns must be known before the first row. They are given, or taken from the first rows that have any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import chain, islice
from typing import Any

from batchllm.core import json
from batchllm.core.nouns import Result

_LOOKAHEAD_ROWS = 1000
_QUOTED = frozenset(',"\r\n')


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line to write: a result, and what was asked for besides (`request`, `response`)."""

    result: Result
    extra: Mapping[str, Any] = field(default_factory=dict)


def plain(results: Iterable[Result]) -> Iterator[Line]:
    """Results without anything besides."""
    return (Line(result=result) for result in results)


def jsonl(lines: Iterable[Line]) -> Iterator[bytes]:
    """The lines of a results file (contract 3); extras come last."""
    for line in lines:
        yield json.dumps({**line.result.as_dict(), **line.extra} if line.extra else line.result.as_dict()) + b"\n"


RESULT_COLUMNS = (
    "custom_id", "row", "status", "output", "parsed", "model", "provider_model", "finish_reason", "input_tokens", "output_tokens", "cached_input_tokens",
    "cache_write_tokens", "reasoning_tokens", "cost_usd", "attempts", "latency_seconds", "shared_from", "error_code", "error_message",
    "error_http_status", "error_provider_code", "error_retryable", "tool_calls",
)  # fmt: skip


def csv(lines: Iterable[Line], *, columns: Sequence[str] | None = None, extras: Sequence[str] = ()) -> Iterator[bytes]:
    """The same as CSV (UTF-8, RFC 4180 quoting, \\n at line ends): usage and error in columns of their own, input columns behind as `input.NAME`.

    Objects, lists and booleans are JSON; null is an empty cell. `columns`: the input columns; None: those of the first row that has some.
    """
    lines = iter(lines)
    ahead: list[Line] = []
    if columns is None:
        for line in lines:
            ahead.append(line)
            if line.result.input is not None or len(ahead) >= _LOOKAHEAD_ROWS:
                break
        columns = list((ahead[-1].result.input or {}) if ahead else ())
    else:
        ahead += _first_ok(lines)
    sampled = ("samples", "agreement") if any(line.result.samples is not None for line in ahead) else ()
    yield _row([*RESULT_COLUMNS, *sampled, *(f"input.{name}" for name in columns), *extras])
    for line in chain(ahead, lines):
        given = line.result.input or {}
        yield _row(
            [
                *values_of(line.result),
                *(getattr(line.result, name) for name in sampled),
                *(given.get(name) for name in columns),
                *(line.extra.get(name) for name in extras),
            ]
        )


def _first_ok(lines: Iterator[Line]) -> Iterator[Line]:
    """The lines up to the first that has an answer, which shows what answers hold in this job."""
    for line in islice(lines, _LOOKAHEAD_ROWS):
        yield line
        if line.result.ok:
            return


def values_of(result: Result) -> list[Any]:
    """The values of `RESULT_COLUMNS`."""
    usage, error = result.usage, result.error
    tokens = (
        [None] * 5
        if usage is None
        else [usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens]
    )
    failure = [None] * 5 if error is None else [str(error.code), error.message, error.http_status, error.provider_code, error.retryable]
    calls = list(result.tool_calls) if result.tool_calls else None
    return [
        result.custom_id, result.row, result.status, result.output, result.parsed, result.model, result.provider_model, result.finish_reason, *tokens,
        result.cost_usd, result.attempts, result.latency_seconds, result.shared_from, *failure, calls,
    ]  # fmt: skip


def _row(values: Sequence[Any]) -> bytes:
    # Not the csv module: before Python 3.13 it leaves a lone \r unquoted, and readers then see two rows.
    return (",".join(map(_cell, values)) + "\n").encode("utf-8", "replace")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        # Never 3.5e-06: spreadsheets in many languages take that for text.
        return format(Decimal(repr(value)), "f")
    text = value if isinstance(value, str) else json.text(value)
    return '"' + text.replace('"', '""') + '"' if not _QUOTED.isdisjoint(text) else text
