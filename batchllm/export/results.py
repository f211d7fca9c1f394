"""Result files, written whole or not at all: to a temporary file beside the target, flushed to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from batchllm.core import json
from batchllm.core.errors import SpecError, StoreError
from batchllm.core.nouns import Result

_BLOCK_BYTES = 1 << 20


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when the block ends well. Raises StoreError when the disk won't have it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise StoreError(f"{path}: can't write here ({error.strerror}); all answers are safe in the store, write them elsewhere with `batchllm export --to`") from error
    try:
        with os.fdopen(handle, "wb", buffering=_BLOCK_BYTES) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # noqa: PTH101 - mkstemp makes 0600; results are the user's ordinary file
        os.replace(name, path)  # noqa: PTH105 - one atomic call
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)  # noqa: PTH108 - may be gone
        if isinstance(error, OSError):
            raise StoreError(
                f"{path}: {error.strerror}; all answers are safe in the store: free some space, then `batchllm export --to {path}`"
            ) from error
        raise


def jsonl_lines(results: Iterable[Result]) -> Iterator[bytes]:
    """The lines of a results file (contract 3)."""
    for result in results:
        yield json.dumps(result.as_dict()) + b"\n"


_CSV = (
    "custom_id", "row", "status", "output", "parsed", "model", "provider_model", "finish_reason", "input_tokens", "output_tokens", "cached_input_tokens",
    "cache_write_tokens", "reasoning_tokens", "cost_usd", "attempts", "latency_seconds", "shared_from", "error_code", "error_message",
)  # fmt: skip


def csv_lines(results: Iterable[Result]) -> Iterator[bytes]:
    """The same as CSV: usage and error in columns of their own, kept input columns behind as `input.NAME`."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    kept: list[str] | None = None
    for result in results:
        if kept is None:
            kept = list(result.input or ())
            writer.writerow([*_CSV, *(f"input.{name}" for name in kept)])
        writer.writerow([_cell(value) for value in _csv_values(result, kept)])
        yield buffer.getvalue().encode("utf-8", "surrogatepass")
        buffer.seek(0)
        buffer.truncate()
    if kept is None:
        writer.writerow(_CSV)
        yield buffer.getvalue().encode()


def _csv_values(result: Result, kept: list[str]) -> list[Any]:
    usage, error = result.usage, result.error
    tokens = (
        [None] * 5
        if usage is None
        else [usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens]
    )
    return [
        result.custom_id, result.row, result.status, result.output, result.parsed, result.model, result.provider_model, result.finish_reason, *tokens,
        result.cost_usd, result.attempts, result.latency_seconds, result.shared_from,
        str(error.code) if error is not None else None, error.message if error is not None else None,
        *((result.input or {}).get(name) for name in kept),
    ]  # fmt: skip


def _cell(value: Any) -> Any:
    return json.text(value) if isinstance(value, dict | list | bool) else value


FORMATS: dict[str, Callable[[Iterable[Result]], Iterator[bytes]]] = {"jsonl": jsonl_lines, "csv": csv_lines}


def format_of(path: Path) -> str:
    """The format that a file name's extension picks. Raises SpecError for one that can't be written."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix in {"jsonl", "ndjson", "json", ""}:
        return "jsonl"
    if suffix == "csv":
        return "csv"
    raise SpecError(f"results can't be written as .{suffix} by this version; use .jsonl or .csv")


def write_results(results: Iterable[Result], path: Path) -> None:
    """Writes all results; `-` is stdout."""
    if str(path) == "-" or path.name == "-":
        for line in jsonl_lines(results):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    with replacing(path) as file:
        for line in FORMATS[format_of(path)](results):
            file.write(line)
