"""What a store holds, for programs: results in input order, one at a time, from a finished, stopped or running job."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from batchllm.core.nouns import Result
from batchllm.spec import JobSpec, load
from batchllm.spec.dotenv import environment
from batchllm.store.read import StoreReader

_MAGIC = b"SQLite format 3\0"


class Results:
    """Results of a store's finished rows. Every iteration reads the store anew, with flat memory."""

    def __init__(self, store: Path) -> None:
        self.store = store
        """The store's path."""

    def __iter__(self) -> Iterator[Result]:
        with StoreReader(self.store) as reader:
            yield from reader.results()

    def __repr__(self) -> str:
        return f"Results({str(self.store)!r})"

    def to_pandas(self) -> Any:
        """A data frame with one line per result: usage and error in columns of their own, kept input columns as `input.NAME`. Needs pandas."""
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise ImportError("to_pandas() needs pandas: pip install pandas") from error
        return pandas.DataFrame([_flat(result) for result in self])


def _flat(result: Result) -> dict[str, Any]:
    line = result.as_dict()
    usage, error, kept = line.pop("usage"), line.pop("error"), line.pop("input")
    for name in ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens"):
        line[name] = usage[name] if usage is not None else None
    for name in ("code", "message", "http_status", "provider_code", "retryable"):
        line[f"error_{name}"] = error[name] if error is not None else None
    return line | {f"input.{name}": value for name, value in (kept or {}).items()}


def results(job: JobSpec | str | Path) -> Results:
    """What the store of a job holds; nothing is sent. `job` is a JobSpec, the path of a spec, or the path of a store.

        for result in batchllm.results("reviews.yaml"):
            if result.ok:
                print(result.custom_id, result.output)
        frame = batchllm.results("reviews.db").to_pandas()

    Raises SpecError for a spec that can't be read, and StoreError (when read) where no store is.
    """
    if isinstance(job, JobSpec):
        return Results(_store_of(job))
    path = Path(job)
    if path.suffix == ".db" or _is_store(path):
        return Results(path)
    return Results(_store_of(load(path)))


def _store_of(job: JobSpec) -> Path:
    return job.store_path(environment(job.folder, os.environ) if job.path is not None else os.environ)


def _is_store(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False
