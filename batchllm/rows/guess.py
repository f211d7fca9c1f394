"""What the columns of a file probably are: which one names a row, which one holds the text, which are numbers. For a first job file, which a person then reads.

The trap: the first rows say little. An id must be unique over all rows that were looked at, and a number must be one in every row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

_ID_NAME = re.compile(r"(?i:(^|[_\W])(id|uuid|guid|key|sku|number|nr|no)$|^(id|uuid|key)([_\W]|$))|I[dD]$")
_TEXT_NAME = re.compile(
    r"text|review|body|content|message|question|prompt|comment|description|input|sentence|article|abstract|note|query|document", re.IGNORECASE
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_LONGEST_ID = 200
_FEW = 12
"""Distinct values of a column that groups rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """The columns of a file by what they are good for."""

    shape: Literal["columns", "messages", "batch"]
    """`messages` and `batch`: rows bring their own request, and need no prompt."""
    columns: tuple[str, ...]
    id: str | None
    """Column that names a row; None: rows are numbered."""
    text: str | None
    """Column with the text that a prompt is about."""
    numbers: tuple[str, ...]
    """CSV columns whose cells are all numbers."""
    groups: tuple[str, ...]
    """Columns with few values: worth keeping beside the answer."""


def guess(rows: Sequence[Mapping[str, Any]], *, cells: bool) -> Guess:
    """By the records that were looked at; `cells`: they are CSV, so that numbers are texts."""
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    shape: Literal["columns", "messages", "batch"] = "columns"
    if rows and all(isinstance(row.get("messages"), list) for row in rows):
        shape = "messages"
    elif rows and all(isinstance(row.get("body"), dict) and "url" in row for row in rows):
        shape = "batch"
    numbers = tuple(name for name in columns if cells and _all_numbers(rows, name))
    named = _id(rows, columns)
    rest = [name for name in columns if name not in (named, *numbers)]
    text = _text(rows, rest)
    groups = tuple(name for name in columns if name not in (named, text) and _is_group(rows, name))
    return Guess(shape=shape, columns=columns, id=named, text=text, numbers=tuple(name for name in numbers if name != named), groups=groups)


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> list[Any]:
    return [row.get(name) for row in rows]


def _all_numbers(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    cells = [cell.strip() for cell in _values(rows, name) if isinstance(cell, str) and cell.strip()]
    # A leading zero is a code, not a number.
    return bool(cells) and all(_NUMBER.fullmatch(cell) and not re.match(r"[+-]?0\d", cell) for cell in cells)


def _id(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    if "custom_id" in columns and _names_rows(rows, "custom_id"):
        return "custom_id"
    fits = [name for name in columns if _ID_NAME.search(name) and _names_rows(rows, name)]
    # The first column is where ids usually stand; `id` itself is plainer than `parent_id`.
    return min(fits, key=lambda name: (name.lower() != "id", columns.index(name)), default=None)


def _names_rows(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = _values(rows, name)
    fit = all(isinstance(value, str | int) and not isinstance(value, bool) and 0 < len(str(value)) <= _LONGEST_ID for value in values)
    return fit and len({str(value) for value in values}) == len(values)


def _text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str | None:
    scores: dict[str, float] = {}
    for name in columns:
        texts = [text for value in _values(rows, name) if (text := _text_of(value)).strip()]
        if not texts:
            continue
        filled = len(texts) / len(rows)
        mean = sum(map(len, texts)) / len(texts)
        links = sum(text.startswith(("http://", "https://")) for text in texts) / len(texts)
        spaces = sum(" " in text.strip() for text in texts) / len(texts)
        scores[name] = filled * min(mean, 2000) * (0.2 + spaces) * (1 - links) * (4 if _TEXT_NAME.search(name) else 1)
    return max(scores, key=scores.__getitem__, default=None)


def _text_of(value: Any) -> str:
    """A text, or a list of texts (the turns of a talk), which a template renders as JSON."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return " ".join(value)
    return value if isinstance(value, str) else ""


def _is_group(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    values = [value for value in _values(rows, name) if isinstance(value, str | int | float)]
    few = len({str(value) for value in values})
    return len(values) == len(rows) > 0 and all(len(str(value)) <= 40 for value in values) and few <= _FEW and few < max(len(rows), 2)
