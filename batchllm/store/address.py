"""Where a run listens for a second terminal: a socket beside the store, or, where that can't be, in a folder of the user's own under the system's temporary one.

A socket's path has room for about a hundred bytes, and some file systems hold no sockets. Who runs is never told by these files: a killed run leaves its
socket behind, and only the lock is true.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

_MOST_BYTES = 100
"""`sun_path` holds 107 on Linux, 103 on macOS."""


def addresses(store: Path) -> Iterator[Path]:
    """Places of the socket, best first. Both sides try them in this order."""
    store = store.absolute()
    beside = store.with_name(store.name + ".sock")
    if len(os.fsencode(beside)) <= _MOST_BYTES:
        yield beside
    name = sha256(os.fsencode(os.path.realpath(store))).hexdigest()[:24]
    elsewhere = Path(tempfile.gettempdir()) / f"batchllm-{os.geteuid()}" / f"{name}.sock"
    if len(os.fsencode(elsewhere)) <= _MOST_BYTES:
        yield elsewhere


def make_folder(address: Path, store: Path) -> None:
    """Makes the folder of an address that isn't beside the store. Raises OSError when somebody else could meddle with it."""
    folder = address.parent
    if folder == store.absolute().parent:
        return
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{folder} is not a folder that only you may use") from None


def remove(address: Path, store: Path) -> None:
    """Takes the socket away, and its folder if that was made for it and no other run's socket is there."""
    with contextlib.suppress(OSError):
        address.unlink()
        if address.parent != store.absolute().parent:
            address.parent.rmdir()


def is_mine(address: Path) -> bool:
    """Whether a socket of this user is there. (That somebody listens is another question.)"""
    try:
        found = address.lstat()
    except OSError:
        return False
    return stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid()


def is_same_user(connection: socket.socket) -> bool:
    """Whether the process at the other end is this user's. Where the kernel doesn't tell, the socket's mode alone decides."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True
    form = "3i"
    _, uid, _ = struct.unpack(form, connection.getsockopt(socket.SOL_SOCKET, option, struct.calcsize(form)))
    return bool(uid == os.geteuid())
