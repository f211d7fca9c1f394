"""A run's place among the runs of this machine: one file each, locked by its run for life, all of them read under one short lock.

The kernel gives up a lock when its process dies, however it dies: so a file without a lock is a dead run's, and no process id has to be trusted (a recycled one
looks alive). A run that is stopped (SIGSTOP, a debugger) keeps its lock but sends nothing; its part is lent out once it has not been heard of for a while, and
what it sends in the instant of its return fits into the half of the burst that nobody uses. No clock is compared between processes: who reads counts the beats.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.share.claim import Claim, Grant, granted
from batchllm.share.folder import make

SILENT_SECONDS = 10.0
"""Without a word for so long a run is stopped, and its part is lent to others."""
_GAP_SECONDS = 3.0
"""Who was away itself for so long can't tell how long the others were silent."""
_BLOCK = 4096
"""Files grow by blocks: writing over one needs no new room, so a disk that fills up doesn't silence a run."""
_VERSION = 1
_RUNS = "runs"
_LOCK = "runs.lock"


class Busy(Exception):  # noqa: N818 - a state, not a fault
    """Another run has the lock at this moment; ask again."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The one lock of the folder; whoever holds it does so for less than a millisecond. Raises Busy, and OSError where there can be no lock."""
    fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy from None
        yield
    finally:
        os.close(fd)


def _read(fd: int) -> dict[str, Any] | None:
    size = os.fstat(fd).st_size
    try:
        entry = json.loads(os.pread(fd, size, 0))
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and entry.get("version") == _VERSION else None


def _is_dead(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _entries(folder: Path, *, but: str = "") -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(file name, entry) of every living run; files of dead ones are taken away. Only under the lock."""
    for name in sorted(os.listdir(folder / _RUNS)):  # noqa: PTH208 - names are what is wanted
        if name == but or not name.endswith(".json"):
            continue
        path = folder / _RUNS / name
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if _is_dead(fd):
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            yield name, _read(fd)
        finally:
            os.close(fd)


class _Heard:
    """What was last heard of another run."""

    __slots__ = ("beat", "entry", "since")

    def __init__(self, entry: dict[str, Any], now: float) -> None:
        self.beat = entry.get("beat")
        self.entry = entry
        self.since = now


class Seat:
    """One run's file. Made by `Seat(...)` and given back by `leave`; a kill gives it back, too."""

    def __init__(self, folder: Path, info: Mapping[str, Any]) -> None:
        """`info` is what others may know of the run: `job`, `store`, `pid`, `since`, ... Raises OSError where no such file can be."""
        self.folder = folder
        self._info = dict(info)
        # Names sort by age: all runs see each other in the same order.
        self._name = f"{int(float(info['since']) * 1000):014d}-{secrets.token_hex(4)}.json"
        self._fd: int | None = None
        self._beats = 0
        self._heard: dict[str, _Heard] = {}
        self._claims: dict[str, Claim] = {}
        self._last: float | None = None
        make(folder)
        make(folder / _RUNS)

    @property
    def _path(self) -> Path:
        return self.folder / _RUNS / self._name

    def _open(self) -> int:
        """The run's own file; made anew when somebody has swept the folder. Only under the lock: a file is locked before anybody can see it unlocked."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == os.fstat(self._fd).st_ino:
                    return self._fd
            os.close(self._fd)
            self._fd = None
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd
        return fd

    def beat(self, now: float, claims: Mapping[str, Claim], info: Mapping[str, Any]) -> dict[str, Grant]:
        """Says what this run wants and hears what it may have, by name of the limit; what it is granted counts as held from then on.

        `held` in `claims` is what the caller holds without any grant (what it uses of a limit that it doesn't know, slots in flight); what was granted before is known
        here. A limit that nobody knows has no grant. Raises Busy (ask again soon) and OSError: what was granted so far then still holds.
        """
        if not (self.folder / _RUNS).is_dir():
            make(self.folder)
            make(self.folder / _RUNS)
        with locked(self.folder):
            others = self._others(now)
            fd = self._open()
            grants: dict[str, Grant] = {}
            told: dict[str, Claim] = {}
            for name, claim in claims.items():
                on_it = [(key, other) for key, entry in others.items() if (other := entry.get(name)) is not None]
                ordered = sorted([*on_it, (self._name, claim)], key=lambda pair: pair[0])
                grant = granted([one for _, one in ordered], [key for key, _ in ordered].index(self._name))
                if grant is None:
                    told[name] = claim
                else:
                    grants[name] = grant
                    # Requests in flight keep their slots, whatever the part has become.
                    told[name] = replace(claim, held=max(grant.part, claim.held) if claim.whole else grant.part)
            self._write(fd, told, info)
            self._last = now
            return grants

    def _others(self, now: float) -> dict[str, dict[str, Claim]]:
        """The claims of every other living run; those of the silent are left out."""
        away = self._last is not None and now - self._last > _GAP_SECONDS
        heard: dict[str, _Heard] = {}
        for name, entry in _entries(self.folder, but=self._name):
            before = self._heard.get(name)
            if entry is None:
                # Torn or of another version: it lives, so what was known of it still holds.
                if before is not None:
                    heard[name] = before
                continue
            if before is not None and before.beat == entry.get("beat") and not away:
                heard[name] = before
            else:
                heard[name] = _Heard(entry, now)
        self._heard = heard
        return {name: _claims_of(one.entry) for name, one in heard.items() if now - one.since < SILENT_SECONDS}

    def _write(self, fd: int, claims: Mapping[str, Claim], info: Mapping[str, Any]) -> None:
        self._beats += 1
        entry = {**self._info, **info, "version": _VERSION, "beat": self._beats, "claims": {name: claim.as_list() for name, claim in claims.items()}}
        data = json.dumps(entry)
        data = data.ljust(-(-len(data) // _BLOCK) * _BLOCK)
        size = os.fstat(fd).st_size
        if os.pwrite(fd, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        if size > len(data):
            os.ftruncate(fd, len(data))

    def leave(self) -> None:
        """Gives the place back; harmless when there is none."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._fd)
        self._fd = None


def _claims_of(entry: Mapping[str, Any]) -> dict[str, Claim]:
    claims = entry.get("claims")
    found: dict[str, Claim] = {}
    if isinstance(claims, dict):
        for name, values in claims.items():
            with contextlib.suppress(ValueError, TypeError):
                found[name] = Claim.of_list(values)
    return found


def running(folder: Path) -> list[dict[str, Any]]:
    """What the living runs say of themselves, oldest first. Raises Busy, and OSError where the folder can't be read."""
    if not (folder / _RUNS).is_dir():
        return []
    with locked(folder):
        return [entry for _, entry in _entries(folder) if entry is not None]
