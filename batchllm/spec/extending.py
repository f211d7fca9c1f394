"""`extends`: a spec laid over another one, key by key, so that a team's models, limits and prices stand in one file.

Objects are merged, everything else is replaced, and a null takes a key away. The traps: a mistake must be told at its place in the file that has it, and a relative path
means the folder of the file that it is written in, whoever extends it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

from batchllm.core.errors import Problem, SpecError
from batchllm.spec.findings import Path, Place, shown
from batchllm.spec.reading import Read, read

KEY = "extends"
_ROWS = frozenset({".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".gz", ".zst"})
"""Endings of input files."""
_PATHS = (
    "input", "input.*", "input.path", "input.path.*", "input.files", "input.files.*", "input.join.*", "prompt.file", "prompt.system.file", "prompt.user.file", "prompt.messages.*.content.file", "output.schema",
    "hosts", "prices", "models.*.api_key_file", "cache", "store", "results",
)  # fmt: skip
"""Where a text is a path."""


def text_of(path: FilePath, label: str) -> str:
    """The text of a spec file; `label` is how messages call it. SpecError where there is none."""
    if path.suffix.lower() in _ROWS and path.is_file():
        raise SpecError(Problem(file=label, message=f"holds rows, not a job; write a job for them: batchllm init {shlex.quote(label)}"))
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise SpecError(Problem(file=label, message="no such file")) from None
    except IsADirectoryError:
        raise SpecError(Problem(file=label, message="is a folder; a job is a spec file such as jobs/quickstart.yaml")) from None
    except OSError as error:
        raise SpecError(Problem(file=label, message=f"can't be read: {error.strerror or error}")) from None
    if raw.startswith(b"SQLite format 3\0"):
        raise SpecError(Problem(file=label, message="is a SQLite file (a store?), not a spec"))
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise SpecError(Problem(file=label, line=line, column=column, message="not UTF-8; save the spec as UTF-8")) from None


def extended(result: Read, *, folder: FilePath, file: str | None, path: FilePath | None) -> Read:
    """What was read, with what it extends below it. SpecError for a file that can't be read and for a circle."""
    return _extended(result, folder=folder, file=file, seen=(path.resolve(),) if path is not None else ())


def _extended(result: Read, *, folder: FilePath, file: str | None, seen: tuple[FilePath, ...]) -> Read:
    name = result.data.get(KEY)
    if name is None:
        return result
    if not isinstance(name, str) or not name:
        raise _wrong(result, file, f"expected the path of a spec, got {shown(name)}")
    base = folder / name
    if base.resolve() in seen:
        raise _wrong(result, file, f"{name} extends this file, directly or by others: a circle")
    label = os.path.join(os.path.dirname(file), name) if file is not None else name  # noqa: PTH118, PTH120 - as the user would write it, `..` and all
    if not base.is_file():
        raise _wrong(result, file, f"{label}: no such file; the path is relative to the spec that has this key")
    below = _extended(read(text_of(base, label), file=label), folder=base.absolute().parent, file=label, seen=(*seen, base.resolve()))
    _move(below.data, base.absolute().parent, folder.absolute())
    places = {at: place if place.file is not None else replace(place, file=label) for at, place in below.places.items()}
    data = _merged(below.data, result.data, (), places)
    return Read(data=data, places=places | result.places, problems=[*below.problems, *result.problems])


def _wrong(result: Read, file: str | None, message: str) -> SpecError:
    place = result.places.get((KEY,))
    line, column = (place.line, place.column) if place is not None else (None, None)
    return SpecError(Problem(file=file, line=line, column=column, path=KEY, message=message))


def _merged(below: Mapping[str, Any], above: Mapping[str, Any], path: Path, places: dict[Path, Place]) -> dict[str, Any]:
    """`places` loses what is replaced."""
    data = dict(below)
    for key, value in above.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            data[key] = _merged(data[key], value, here, places)
            continue
        data[key] = value
        for at in [at for at in places if at[: len(here)] == here]:
            del places[at]
    return data


def _move(data: dict[str, Any], old: FilePath, new: FilePath) -> None:
    """Relative paths of one folder, as they are written in another."""
    if old != new:
        for pattern in _PATHS:
            _moved(data, tuple(pattern.split(".")), os.path.relpath(old, new))


def _moved(data: Any, steps: tuple[str, ...], way: str) -> None:
    step, rest = steps[0], steps[1:]
    keys: list[Any] = []
    if isinstance(data, dict):
        keys = list(data) if step == "*" else [step] if step in data else []
    elif isinstance(data, list) and step == "*":
        keys = list(range(len(data)))
    for key in keys:
        value = data[key]
        if rest:
            _moved(value, rest, way)
        elif isinstance(value, str) and value not in {"", "-", "none"} and not value.startswith(("/", "${")):
            data[key] = os.path.normpath(os.path.join(way, value))  # noqa: PTH118 - `..` stays, and so do glob characters
