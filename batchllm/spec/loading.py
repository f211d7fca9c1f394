"""The three ways to a JobSpec: a file, the text that a store kept, and Python values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.core.tools import Toolkit
from batchllm.spec.assemble import assemble
from batchllm.spec.extending import extended, text_of
from batchllm.spec.findings import Written
from batchllm.spec.job import JobSpec, Source
from batchllm.spec.reading import plain_data, read


def load(path: str | Path, *, set: Mapping[str, Any] | None = None) -> JobSpec:  # noqa: A002 - contract 4 names it
    """Reads a spec file (.yaml, .yml, .json, .toml). `set` maps dotted keys to values. SpecError with every problem, each with its place."""
    shown = os.fspath(path)
    path = Path(path)
    text = text_of(path, shown)
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
    result = extended(result, folder=folder, file=file or (str(path) if path is not None else None), path=path)
    written = Written(data=result.data, places=result.places, file=file or (str(path) if path is not None else None))
    return assemble(Source(written=written, text=text, path=path, folder=folder), changes=set, problems=result.problems)


def build(data: Mapping[str, Any], *, folder: Path | None = None, toolkit: Toolkit | None = None) -> JobSpec:
    """A spec from Python values with the keys of a spec file (`batchllm.Job(**keys)`); relative paths are relative to `folder`, default the current one.

    `toolkit`: functions that models may call, which `request.tools` of the data declares.
    """
    folder = (folder or Path.cwd()).absolute()
    result = extended(plain_data(data), folder=folder, file=None, path=None)
    written = Written(data=result.data)
    source = Source(written=written, text=json.canonical(result.data).decode(), folder=folder, toolkit=toolkit)
    return assemble(source, problems=result.problems)
