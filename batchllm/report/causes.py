"""Failed rows by cause, each with its example, its fix, and the very line that tries these rows again."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from batchllm.core.errors import SpecError
from batchllm.core.nouns import Code
from batchllm.report.fixes import Fix, fix_of
from batchllm.report.gather import InputRows
from batchllm.report.text import clean, rows
from batchllm.store.read import StoreReader, error_groups, identity, snapshot

_PLACES_ROWS = 200_000
"""Places of example rows are looked up in the input this far: it has to be read from its start."""
_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One failed row of a cause."""

    row: int
    custom_id: str | None
    message: str
    place: str | None
    """`data/reviews.jsonl:17`; None when the input can't be read again, or has changed."""

    @property
    def words(self) -> str:
        """`row 17 (id r17, data/reviews.jsonl:18)`."""
        more = [f"id {clean(self.custom_id, 60)}"] if self.custom_id is not None and self.custom_id != str(self.row) else []
        more += [self.place] if self.place is not None else []
        return f"row {self.row}" + (f" ({', '.join(more)})" if more else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Failed rows that failed alike."""

    code: str
    http_status: int | None
    provider_code: str | None
    model: str | None
    rows: int
    retryable: bool
    """Whether the same request may well succeed later."""
    examples: Sequence[Example]
    fix: Fix
    commands: Sequence[str]
    """What to type, in order; empty lines of advice are in `fix`."""

    def as_dict(self) -> dict[str, Any]:
        """An element of `errors --json`."""
        return {
            "code": self.code,
            "http_status": self.http_status,
            "provider_code": self.provider_code,
            "model": self.model,
            "rows": self.rows,
            "retryable": self.retryable,
            "message": self.examples[0].message,
            "examples": [{"row": one.row, "custom_id": one.custom_id, "place": one.place, "message": one.message} for one in self.examples],
            "fix": self.fix.words,
            "commands": list(self.commands),
        }


def causes(reader: StoreReader, source: InputRows | None, *, job: str, windows: Mapping[str, int | None] = MappingProxyType({})) -> list[Cause]:
    """All causes, most rows first. `job` is how the user names the job; `windows` has the models of its spec and how much they take, as far as that is known."""
    with snapshot(reader):
        groups = error_groups(reader.connection)
        places = _places(reader, source, ((key, row) for group in groups for key, row, _, _ in group["examples"]))
    per_code = Counter(group["code"] for group in groups)
    return [
        Cause(
            **{name: group[name] for name in ("code", "http_status", "provider_code", "model", "rows", "retryable")},
            examples=tuple(
                Example(row=row, custom_id=custom_id, message=clean(message, _MESSAGE_CHARACTERS), place=places.get(row))
                for _, row, custom_id, message in group["examples"]
            ),
            fix=fix_of(group["code"]),
            commands=_commands(group, job=job, alone=per_code[group["code"]] == 1, windows=windows),
        )
        for group in groups
    ]


def _places(reader: StoreReader, source: InputRows | None, wanted: Iterable[tuple[int, int]]) -> dict[int, str]:
    places: dict[int, str] = {}
    if source is None:
        return places
    try:
        for key, position in sorted(wanted, key=lambda one: one[1]):
            if position >= _PLACES_ROWS:
                break
            row = source.at(position)
            if row is not None and row.identity == identity(reader.connection, key):
                places[position] = row.place
    except SpecError:
        pass  # a damaged file: the examples stand without their places
    return places


def _commands(group: Mapping[str, Any], *, job: str, alone: bool, windows: Mapping[str, int | None]) -> tuple[str, ...]:
    code, step = group["code"], fix_of(group["code"]).next
    if step == "run":
        return (f"batchllm run {job}",)
    pick = f"--code {code}" if alone else f"--where {shlex.quote(_condition(group))}"
    if step == "model":
        others = _others(group, windows)
        if others or not windows:
            return (f"batchllm retry {job} {pick} --model {others[0] if len(others) == 1 else 'NAME'}", f"batchllm run {job}")
    if alone:
        return (f"batchllm run {job} --retry-failed {code}",)
    return (f"batchllm retry {job} {pick}", f"batchllm run {job}")


def _others(group: Mapping[str, Any], windows: Mapping[str, int | None]) -> list[str]:
    """Models that may take what this one didn't: of prompts that were too long for it, none that is known to take no more."""
    least = windows.get(group["model"]) if group["code"] == Code.TOO_LONG else None
    return [name for name, window in windows.items() if name != group["model"] and (least is None or window is None or window > least)]


def _condition(group: Mapping[str, Any]) -> str:
    """The condition over `results` that means this cause and no other."""
    parts = {
        "error_code": group["code"],
        "error_http_status": group["http_status"],
        "error_provider_code": group["provider_code"],
        "model": group["model"],
    }
    return " AND ".join(["status = 'failed'", *(f"{column} IS {_literal(value)}" for column, value in parts.items())])


def _literal(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def cause_lines(cause: Cause) -> list[str]:
    """A cause as text."""
    facts = [f"HTTP {cause.http_status}" if cause.http_status is not None else "", clean(cause.provider_code or "", 80), clean(cause.model or "", 80)]
    title = ", ".join(["; ".join([f"{rows(cause.rows)}: {cause.code}"]), *(fact for fact in facts if fact)])
    lines = [title, f"  message  {cause.examples[0].message or '(none)'}"]
    lines.append(
        f"  {'rows' if cause.rows > 1 else 'row':<7}  {', '.join(one.words for one in cause.examples)}{', ...' if cause.rows > len(cause.examples) else ''}"
    )
    lines.append(f"  fix      {cause.fix.words}")
    return [*lines, *(f"  {'->':>7}  {command}" for command in cause.commands)]
