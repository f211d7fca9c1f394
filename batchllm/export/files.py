"""Files that are written whole or not at all: to a temporary file beside the target, flushed to disk, then renamed over it.

The trap: a rename replaces whatever is there. A device or a pipe (`/dev/null`, a FIFO) is written to instead, and a link's target is replaced, not the link.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from batchllm.core.errors import SpecError, StoreError

_BLOCK_BYTES = 1 << 20


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when the block ends well. Raises SpecError for a folder, StoreError when the disk won't have it."""
    if path.is_dir():
        raise SpecError(f"{path}: is a folder; give the name of a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path = path.resolve()
        before = path.stat() if path.exists() else None
        if before is not None and not stat.S_ISREG(before.st_mode):
            with path.open("wb") as device:
                yield device
            return
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _failed(path, error) from error
    name = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    try:
        # Opened with the mode that the user's umask leaves, as any program's file; one that was there keeps its mode.
        handle = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _failed(path, error) from error
    try:
        with os.fdopen(handle, "wb", buffering=_BLOCK_BYTES) as file:
            if before is not None:
                with contextlib.suppress(OSError):
                    os.fchmod(handle, stat.S_IMODE(before.st_mode))
            yield file
            file.flush()
            os.fsync(handle)
        name.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            name.unlink()
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise _failed(path, error) from error
        raise


def _failed(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: {error.strerror or error}; all answers are safe in the store: free some space or choose another place, then `batchllm export JOB --to PATH`"
    )
