"""The view `answers`: ok answers with one column per top-level property of the job's schema, so that a SQLite browser shows what was asked for.

The trap: the names come from the user's schema. They are quoted, columns that SQLite takes for the same get a number, and a view that is right already is left
alone, since each change of a schema makes every open reader prepare its statements anew.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

PLAIN = ("output",)
_OWN = ("row_key", "row", "custom_id", "model")
_MOST_COLUMNS = 1000
"""SQLite takes 2000 columns by default."""


def create_answers(connection: sqlite3.Connection, columns: Sequence[str] | None, *, whole: bool) -> None:
    """Brings the view in line with the job, inside the caller's transaction. `columns`: the properties of `parsed`, or with `whole` the name for the value itself;
    None: answers have no form, and the view shows their texts.
    """
    wanted = f"CREATE VIEW answers AS {_query(columns, whole=whole)}"
    found = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'view' AND name = 'answers'").fetchone()
    if found is None or found[0] != wanted:
        connection.execute("DROP VIEW IF EXISTS answers")
        connection.execute(wanted)


def _query(columns: Sequence[str] | None, *, whole: bool) -> str:
    if columns is None:
        values = [(name, f"o.{name}") for name in PLAIN]
    else:
        values = [(name, "json_extract(o.parsed, '$')" if whole else _property(name)) for name in columns[:_MOST_COLUMNS]]
    named = zip(_distinct([*_OWN, *(name for name, _ in values)])[len(_OWN) :], (value for _, value in values), strict=True)
    shown = "".join(f", {value} AS {_quoted(name)}" for name, value in named)
    return (
        f"SELECT o.row_key, r.row, r.custom_id, d.name AS model{shown} "  # noqa: S608 - names are quoted
        "FROM outcomes o JOIN rows r ON r.row_key = o.row_key LEFT JOIN deployments d ON d.deployment = o.deployment "
        "WHERE o.status = 'ok' AND r.row IS NOT NULL"
    )


def _property(name: str) -> str:
    if '"' in name or "\\" in name:
        # No path can say such a name.
        return f"(SELECT value FROM json_each(o.parsed) WHERE key = {_text(name)})"  # noqa: S608 - quoted
    return f"json_extract(o.parsed, {_text(f'$.{_double(name)}')})"


def _double(name: str) -> str:
    return f'"{name}"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''").replace("\0", "") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace("\0", "") + '"'


def _distinct(names: Iterable[str]) -> list[str]:
    """Case says nothing to SQLite, so `Name` and `name` are one column: the later one gets a number."""
    taken: set[str] = set()
    result = []
    for name in names:
        free, nth = name, 1
        while free.casefold() in taken:
            nth += 1
            free = f"{name}_{nth}"
        taken.add(free.casefold())
        result.append(free)
    return result
