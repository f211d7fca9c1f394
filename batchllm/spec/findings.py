"""What is wrong with a spec, before it has a place: a `Finding` names a path in the data, `locate` turns it into a `Problem` with file, line and column.

Trap: validation sees normalised data (`input: x.jsonl` became `{path: [x.jsonl]}`), the reader saw what was written. `written_path` walks a location
through the written data and leaves out the steps that only normalisation added.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from batchllm.core import json
from batchllm.core.errors import Problem

Path = tuple[str | int, ...]
"""Keys and list indexes from the top of the spec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a value and its key begin; all 1-based. An item of a list is its own key."""

    line: int
    column: int
    key_line: int
    key_column: int
    file: str | None = None
    """The file that it came from by `extends`; None: the spec itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, at a path of the data."""

    path: Path
    message: str
    at: Literal["value", "key", "missing"] = "value"
    """`missing`: the last step of the path isn't there; its parent is where to look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A spec as it was written: plain data, and where each part of it stands."""

    data: Mapping[str, Any]
    places: Mapping[Path, Place] = field(default_factory=dict)
    file: str | None = None
    """As the user named it."""
    set_paths: tuple[Path, ...] = ()
    """What `--set` changed."""
    set_label: str | None = "--set"
    """How messages name the origin of `set_paths`."""


def found(path: Path, message: str) -> Finding:
    """A finding at a value."""
    return Finding(path=path, message=message)


def shown(value: Any) -> str:
    """A value as a message shows it: short, text in quotes."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, Mapping):
        return "keys and values" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, Decimal):
        return f"{value:f}"
    try:
        return json.text(value)
    except TypeError:
        return repr(value)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """`; did you mean ...?`, or nothing."""
    close = difflib.get_close_matches(word.lower(), list(choices), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def written_path(data: Any, path: Path) -> Path:
    """The part of a path that exists in the written data; steps that normalisation added are left out."""
    result: Path = ()
    for step in path:
        if isinstance(data, Mapping):
            if step not in data:
                continue
        elif not isinstance(data, list) or not isinstance(step, int) or step >= len(data):
            continue
        data = data[step]
        result = (*result, step)
    return result


def dotted(path: Path) -> str | None:
    """`models.mini.provider`; None at the top."""
    return ".".join(str(step) for step in path) or None


def locate(findings: Iterable[Finding], written: Written) -> list[Problem]:
    """Problems in the order of the file; the first finding at a path wins."""
    known: dict[tuple[Path, str], tuple[tuple[int, int], Problem]] = {}
    for finding in findings:
        path = written_path(written.data, finding.path)
        place = _nearest(written.places, path)
        # A key that is there with a null is missing, too.
        absent = finding.at == "missing" and len(path) < len(finding.path)
        shown_path = (*path, finding.path[-1]) if absent else path
        by_set = _by_set(shown_path, written.set_paths)
        line = column = file = None
        if place is not None and not by_set:
            file = place.file
            # A value on its key's line is pointed at itself; a block that begins below is pointed at by its key.
            key = finding.at != "value" or place.line != place.key_line
            line, column = (place.key_line, place.key_column) if key else (place.line, place.column)
        problem = Problem(
            file=written.set_label if by_set else file or written.file,
            line=line,
            column=column,
            path=dotted(shown_path),
            message=finding.message,
        )
        known.setdefault((shown_path, "missing" if finding.at == "missing" else ""), ((line or 0, column or 0), problem))
    return [problem for _, problem in sorted(known.values(), key=lambda item: item[0])]


def _nearest(places: Mapping[Path, Place], path: Path) -> Place | None:
    for length in range(len(path), -1, -1):
        place = places.get(path[:length])
        if place is not None:
            return place
    return None


def _by_set(path: Path, set_paths: tuple[Path, ...]) -> bool:
    return any(path[: len(prefix)] == prefix for prefix in set_paths)
