"""The three ways to a JobSpec: a file, the text that a store kept, and Python values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.spec.assemble import assemble
from batchllm.spec.findings import Written
from batchllm.spec.job import JobSpec, Source
from batchllm.spec.reading import plain_data, read


def load(path: str | Path, *, set: Mapping[str, Any] | None = None) -> JobSpec:  # noqa: A002 - contract 4 names it
    """Reads a spec file (.yaml, .yml, .json, .toml). `set` maps dotted keys to values. SpecError with every problem, each with its place."""
    shown = os.fspath(path)
    path = Path(path)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise SpecError(Problem(file=shown, message="no such file")) from None
    except IsADirectoryError:
        raise SpecError(Problem(file=shown, message="is a folder; a job is a spec file such as jobs/quickstart.yaml")) from None
    except OSError as error:
        raise SpecError(Problem(file=shown, message=f"can't be read: {error.strerror or error}")) from None
    if raw.startswith(b"SQLite format 3\0"):
        raise SpecError(Problem(file=shown, message="is a SQLite file (a store?), not a spec"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        raise SpecError(Problem(file=shown, line=line, column=column, message="not UTF-8; save the spec as UTF-8")) from None
    return loads(text, folder=path.absolute().parent, path=path.absolute(), set=set, file=shown)


def loads(
    text: str,
    *,
    folder: Path,
    path: Path | None = None,
    set: Mapping[str, Any] | None = None,  # noqa: A002 - as in `load`
    file: str | None = None,
) -> JobSpec:
    """Reads the text of a spec, e.g. what a store kept; `path` gives the default name and tells TOML from YAML, `file` is how messages call it."""
    result = read(text, file=file or (str(path) if path is not None else None))
    written = Written(data=result.data, places=result.places, file=file or (str(path) if path is not None else None))
    return assemble(Source(written=written, text=text, path=path, folder=folder), changes=set, problems=result.problems)


def build(data: Mapping[str, Any], *, folder: Path | None = None) -> JobSpec:
    """A spec from Python values with the keys of a spec file (`batchllm.Job(**keys)`); relative paths are relative to `folder`, default the current one."""
    result = plain_data(data)
    folder = (folder or Path.cwd()).absolute()
    written = Written(data=result.data)
    source = Source(written=written, text=json.canonical(result.data).decode(), folder=folder)
    return assemble(source, problems=result.problems)
