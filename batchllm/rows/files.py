"""Which files are the input: paths and globs become a fixed, sorted list, and everything that can be wrong with a file's name is said before anything is sent.

The trap: a position counts over all files, so their order must not depend on the file system. Globs are sorted, patterns keep the order of the spec, and
a file that two patterns match is read once, at its first place.
"""

from __future__ import annotations

import glob
import gzip
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from batchllm.core.errors import Problem, SpecError
from batchllm.rows.columnar import NEEDS, is_there

Format = Literal["jsonl", "csv", "parquet", "file"]
"""`file`: the file is one row."""
Compression = Literal["gz", "zst"]

_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gz", ".zst": "zst"}


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One input file as it was when the run looked; size and mtime tell a later run whether it must read the file again."""

    path: Path
    """Absolute."""
    name: str
    """As shown to the user."""
    format: Format
    compression: Compression | None
    size: int
    """Bytes on disk."""
    mtime_ns: int

    @property
    def delimiter(self) -> str:
        """What separates cells when the spec doesn't say: a tab in `.tsv`, else a comma."""
        suffixes = [suffix.lower() for suffix in self.path.suffixes]
        return "\t" if suffixes[-2 if self.compression else -1] == ".tsv" else ","


def resolve(patterns: Sequence[str], *, base: Path | None = None, but: Sequence[Path] = (), whole: bool = False) -> tuple[InputFile, ...]:
    """The input files of all patterns (absolute paths or globs, `**` too), in a stable order. Globs leave out the files in `but`: `*.jsonl` must not
    take in what an earlier run of the job wrote. `whole`: each file is one row, whatever is in it.

    Names are shown relative to `base` (default: the current folder) where that is shorter. Raises `SpecError` with all problems at once.
    """
    problems: list[Problem] = []
    found: dict[Path, InputFile] = {}
    for pattern in patterns:
        try:
            for path in _matches(pattern, but):
                found.setdefault(path, _look(path, base or Path.cwd(), whole=whole))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise SpecError(problems)
    if not found:
        raise SpecError(Problem(path="input", message="no input file is named"))
    return tuple(found.values())


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, or would."""
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()


def _matches(pattern: str, but: Sequence[Path]) -> list[Path]:
    # A file whose very name holds glob characters is meant literally.
    if os.path.lexists(pattern) or not glob.has_magic(pattern):
        return [Path(os.path.abspath(pattern))]  # noqa: PTH100 - resolve() would follow links and show another name than the user's
    paths = [Path(os.path.abspath(match)) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH100, PTH207 - as above; the pattern is absolute
    files = [path for path in paths if not path.is_dir() and not any(is_same(path, own) for own in but)]
    if not files:
        more = " (results of this job aside)" if any(not path.is_dir() for path in paths) else ""
        raise SpecError(Problem(path="input", message=f"{pattern}: no file matches{more}; check the folder and the pattern"))
    return files


def _look(path: Path, base: Path, *, whole: bool) -> InputFile:
    relative = os.path.relpath(path, base)
    name = str(path) if relative.startswith("..") else relative
    try:
        info = path.stat()
    except FileNotFoundError:
        raise SpecError(
            Problem(file=name, message="the input file doesn't exist; check the path (in a spec it is relative to the spec's folder)")
        ) from None
    except OSError as error:
        raise SpecError(Problem(file=name, message=f"the input file can't be read: {error.strerror}")) from error
    if stat.S_ISDIR(info.st_mode):
        raise SpecError(Problem(file=name, message=f"is a folder; name its files, e.g. {name}/*.{'jpg' if whole else 'jsonl'}"))
    if not stat.S_ISREG(info.st_mode):
        raise SpecError(Problem(file=name, message="is no ordinary file; send a stream to stdin with `--input -`"))
    if not os.access(path, os.R_OK):
        raise SpecError(Problem(file=name, message="the input file can't be read: permission denied"))
    if whole:
        return InputFile(path=path, name=name, format="file", compression=None, size=info.st_size, mtime_ns=info.st_mtime_ns)
    kind, compression = _kind(path, name)
    if info.st_size == 0:
        raise SpecError(Problem(file=name, message="the input file is empty"))
    return InputFile(path=path, name=name, format=kind, compression=compression, size=info.st_size, mtime_ns=info.st_mtime_ns)


def _kind(path: Path, name: str) -> tuple[Format, Compression | None]:
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    compression = _COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    if compression:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _FORMATS:
        return _FORMATS[suffix], compression
    if suffix == ".parquet":
        if compression is not None:
            raise SpecError(Problem(file=name, message="a Parquet file is compressed inside; unpack this one"))
        if not is_there():
            raise SpecError(Problem(file=name, message=f"{NEEDS} (or convert it to .jsonl or .csv)"))
        return "parquet", None
    if suffix == ".json":
        raise SpecError(Problem(file=name, message="one JSON document is not read; write one object per line into a .jsonl file"))
    known = "known are .jsonl (.ndjson) and .csv (.tsv), each also with .gz or .zst, and .parquet"
    raise SpecError(Problem(file=name, message=f"the extension {suffix or '(none)'!s} doesn't tell the format; {known}"))


def broken_stream() -> tuple[type[BaseException], ...]:
    """What reading may raise when a file is cut short, damaged, or taken away."""
    return (EOFError, OSError, zlib.error, _zstd().ZstdError)


@contextmanager
def open_bytes(file: InputFile) -> Iterator[BinaryIO]:
    """The file's content, decompressed as it is read. Raises `SpecError` when it can't be opened."""
    try:
        if file.compression == "gz":
            stream = cast("BinaryIO", gzip.open(file.path, "rb"))  # noqa: SIM115 - closed below
        elif file.compression == "zst":
            stream = cast("BinaryIO", _zstd().open(file.path, "rb"))
        else:
            stream = file.path.open("rb")
    except OSError as error:
        raise SpecError(Problem(file=file.name, message=f"the input file can't be opened: {error.strerror or error}")) from error
    with stream:
        yield stream


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14's own
    except ImportError:
        from backports import zstd
    return zstd
