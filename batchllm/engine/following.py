"""`run --follow`: the input file as a stream that doesn't end where the file does now.

The trap: nothing tells that a writer has finished. So the end is silence of a given length, or Ctrl-C; until then a line that has no newline yet isn't taken for a row.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from glob import has_magic
from pathlib import Path

from batchllm.core.errors import Problem, SpecError
from batchllm.spec import JobSpec

_POLL_SECONDS = 0.2


class Following:
    """What `rows.read.read_stream` reads. Read in a thread that nobody waits for."""

    def __init__(self, path: Path, *, idle_seconds: float | None) -> None:
        self.label = path.name
        """As messages call it."""
        self._path = path
        self._idle_seconds = idle_seconds
        self._file = path.open("rb")

    def read1(self, size: int) -> bytes:
        """What is there; waits while there is nothing, and gives b"" after so much silence. OSError when the file was made shorter."""
        silent_since = time.monotonic()
        while not (data := self._file.read(size)):
            if self._path.stat().st_size < self._file.tell():
                raise OSError("it was made shorter while it was followed")
            if self._idle_seconds is not None and time.monotonic() - silent_since >= self._idle_seconds:
                self._file.close()
                return b""
            time.sleep(_POLL_SECONDS)
        return data


def follow(spec: JobSpec, environ: Mapping[str, str], *, idle_seconds: float | None) -> Following:
    """The spec's input, followed. SpecError for an input that can't be: it must be one plain .jsonl file."""
    patterns = spec.input_patterns(environ)
    if len(patterns) != 1 or spec.rows_are_files or (has_magic(patterns[0]) and not Path(patterns[0]).exists()):
        raise SpecError(Problem(file="--follow", message="follows one file: name it under `input`, or with --input"))
    path = Path(patterns[0])
    if path.suffix.lower() not in {".jsonl", ".ndjson"}:
        raise SpecError(Problem(file="--follow", message=f"{path.name}: only a plain .jsonl file can be followed"))
    try:
        return Following(path, idle_seconds=idle_seconds)
    except OSError as error:
        raise SpecError(Problem(file="--follow", message=f"{path}: can't be read: {error.strerror or error}")) from None
