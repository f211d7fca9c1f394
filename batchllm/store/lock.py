"""The lock that lets one process write to a store: `flock` on a file beside it.

The kernel drops it when the process dies, however it dies, so there is no stale lock to clean up. The file stays: removing it would race.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from batchllm.core.errors import StoreBusy, StoreError

_MOMENTS, _MOMENT_SECONDS = 10, 0.003


def _lock_path(store: Path) -> Path:
    # The file itself, whatever links lead to it: two names must not make two locks.
    return Path(os.path.realpath(store) + ".lock")


def _flock(fd: int) -> None:
    """Takes the lock. Who only asks (`is_locked`: a `status` on a timer) holds it for an instant, too; that is waited out."""
    for _ in range(_MOMENTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_MOMENT_SECONDS)
        else:
            return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class StoreLock:
    """Held from `take` to `release`."""

    def __init__(self, store: Path) -> None:
        self._path = _lock_path(store)
        self._fd: int | None = None

    def take(self) -> None:
        """Raises StoreBusy when another process (or another session of this one) holds it."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{self._path.parent}: can't write here ({error.strerror}); choose another place with --store") from error
        try:
            _flock(fd)
        except BlockingIOError:
            holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            store = self._path.name.removesuffix(".lock")
            raise StoreBusy(
                f"{store} is in use by another run (process {holder}). Wait for it, stop it with `kill -INT {holder}`, "
                "or start this one with --if-running wait (or skip)."
            ) from None
        except OSError as error:
            os.close(fd)
            raise StoreError(f"{self._path}: this file system has no locks ({error.strerror}); put the store on a local disk with --store") from error
        # Who holds it is only for the message of others; a full disk may keep it.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        self._fd = fd

    def release(self) -> None:
        """Gives the lock back; harmless when it isn't held."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None


def is_locked(store: Path) -> int | None:
    """The process id of the run that holds the store, 0 if it doesn't say, None if none does."""
    try:
        fd = os.open(_lock_path(store), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 64, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return None
