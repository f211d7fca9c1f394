"""A record becomes a `Row`: its position, its id, what it is matched by on resume, or what is wrong with it.

The trap: whether ids come from `custom_id` or from row numbers is decided by the first readable record and must come out the same on every run, so it
depends on the records alone. Duplicates are not looked for here: that needs the store.
"""

from __future__ import annotations

from typing import Any

from batchllm.core import json
from batchllm.core.nouns import Code, Row, RowError

ID_COLUMN = "custom_id"
DEPTH = 100
"""Deeper nesting is refused: no prompt needs it, and what renders, hashes and stores a record walks it recursively."""


class Records:
    """Numbers the records of one job's input, in order, over all files."""

    __slots__ = ("_column", "_decided", "position")

    def __init__(self, id_column: str | None = None) -> None:
        self._column = id_column
        self._decided = id_column is not None
        self.position = 0
        """Of the next record."""

    @property
    def id_column(self) -> str | None:
        """The column that ids are read from; None while unknown, or when ids are row numbers."""
        return self._column

    def readable(self, fields: dict[str, Any], *, place: str, id_text: str | None = None) -> Row:
        """The row of a record that could be read; `id_text` is its id's cell, verbatim, where cells have types."""
        if not self._decided:
            self._decided = True
            self._column = ID_COLUMN if ID_COLUMN in fields else None
        column = self._column
        position = self.position
        self.position = position + 1
        if column is None:
            return Row(position=position, custom_id=None, identity=f"content:{json.digest(fields)[:32]}", fields=fields, place=place)
        value = fields.get(column) if id_text is None else id_text
        if type(value) is str and value:
            return Row(position=position, custom_id=value, identity=f"id:{value}", fields=fields, place=place)
        if type(value) is int:
            return Row(position=position, custom_id=str(value), identity=f"id:{value}", fields=fields, place=place)
        error = RowError(code=Code.BAD_ROW, message=f"{place}: {_id_problem(column, fields, value)}")
        return Row(position=position, custom_id=None, identity=f"bad:{json.digest(fields)[:32]}", fields=fields, place=place, error=error)

    def unreadable(self, digest: str, *, place: str, problem: str) -> Row:
        """The row of a record that can't be read; `digest` tells it from others."""
        position = self.position
        self.position = position + 1
        error = RowError(code=Code.BAD_ROW, message=f"{place}: {problem}")
        return Row(position=position, custom_id=None, identity=f"bad:{digest}", fields={}, place=place, error=error)


def _id_problem(column: str, fields: dict[str, Any], value: Any) -> str:
    name = f"the id ({column})"
    if column not in fields:
        return f"{name} is missing; every row needs one as soon as `id` is set or the first row has {ID_COLUMN}"
    if value is None or value == "":
        return f"{name} is {'null' if value is None else 'empty'}; give every row an id"
    if isinstance(value, float) and value.is_integer() and abs(value) >= 2**53:
        return f"{name} is a number too large to be kept exactly; write it as a string, in quotes"
    return f"{name} is {json.text(value)[:60]}; an id is a string or an integer"


def too_deep(value: Any) -> bool:
    """Whether a JSON value is nested deeper than `DEPTH`; looks level by level, so that no nesting can exhaust the stack."""
    level = [value]
    for _ in range(DEPTH):
        level = [item for outer in level for item in (outer.values() if isinstance(outer, dict) else outer) if isinstance(item, dict | list)]
        if not level:
            return False
    return True
