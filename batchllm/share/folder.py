"""The user's state folder: where it is, and that nobody else can meddle with it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path


def state_folder(environ: Mapping[str, str]) -> Path | None:
    """`$BATCHLLM_STATE`, else `$XDG_STATE_HOME/batchllm`, else `~/.local/state/batchllm`; None where there is no home."""
    own = environ.get("BATCHLLM_STATE")
    if own:
        return Path(own).absolute()
    xdg = environ.get("XDG_STATE_HOME")
    # A relative one is to be ignored (XDG Base Directory Specification).
    if xdg and Path(xdg).is_absolute():
        return Path(xdg) / "batchllm"
    home = environ.get("HOME")
    return Path(home) / ".local" / "state" / "batchllm" if home else None


def make(folder: Path) -> None:
    """Makes the folder for its owner alone. Raises OSError where it can't be, or is somebody else's."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, "there is a file where the folder should be", error.filename) from None
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "is another user's", str(folder))
    if found.st_mode & 0o077:
        folder.chmod(0o700)
