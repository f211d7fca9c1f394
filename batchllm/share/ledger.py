"""What several stores use of one pool in a day. Money: each leases some before it reserves any, so that all together never pass the cap. Limits: each just tells.

A lease lives on disk before it is spent. Who dies keeps it until its store is opened again (which knows what was really spent) or the day is over: so a crash
costs the others a lease at most, and the promise nothing. Leases are parts of what is left, so near the cap they become as small as the requests.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.share.folder import make
from batchllm.share.seat import Busy, locked

_DAYS = "days"
_DAY_SECONDS = 86_400
_KEPT_DAYS = 2
"""Older files are swept away. (Not at midnight: a clock may be wrong for a while.)"""
_PART = 8
"""A lease is this part of what is left."""
_TRIES = 100
_TRY_SECONDS = 0.001


def leased(held: Mapping[str, int], who: str, *, cap: int, used: int, need: int) -> int:
    """What `who` may have spent and reserved from now on, of which it has `used` already: `need` more or else all that is left. It may be less than before."""
    free = max(0, cap - used - sum(pico for other, pico in held.items() if other != who))
    return used + min(free, max(need, free // _PART))


class DayLedger:
    """The ledger of one pool, for one store."""

    def __init__(self, folder: Path, pool: str, who: str) -> None:
        self._folder = folder
        self._who = who
        # A group's name may hold anything.
        self._pool = sha256(pool.encode()).hexdigest()[:24]

    def lease(self, day_utc: float, *, cap: int, used: int, need: int) -> int:
        """`leased`, written down. Raises OSError where it can't be, and Busy when another process keeps the lock."""
        return self._change(day_utc, lambda held: leased(held, self._who, cap=cap, used=used, need=need))

    def settle(self, day_utc: float, *, used: int) -> None:
        """Holds what was used and nothing more: at the end of a run, and at the start of one, where a crash has left a lease. Raises as `lease` does."""
        self._change(day_utc, lambda _held: used)

    def tell(self, day_utc: float, *, used: int) -> int:
        """Says how much this store used of the day, and returns what the others did. Nothing is leased, so what a dead run used since its last word isn't known here.
        Raises as `lease` does.
        """
        others = 0

        def what(held: dict[str, int]) -> int:
            nonlocal others
            others = sum(amount for who, amount in held.items() if who != self._who)
            return used

        self._change(day_utc, what)
        return others

    def _change(self, day_utc: float, what: Callable[[dict[str, int]], int]) -> int:
        path = self._path(day_utc)
        for left in range(_TRIES, -1, -1):
            try:
                with locked(self._folder):
                    held = _read(path)
                    mine = what(held)
                    if held.get(self._who, 0) != mine:
                        self._write(path, {**held, self._who: mine})
                    return mine
            except Busy:
                if not left:
                    raise
                # The lock is held for less than a millisecond; asking later would stop a run whose budget isn't used up.
                time.sleep(_TRY_SECONDS)
        raise AssertionError

    def _path(self, day_utc: float) -> Path:
        day = int(day_utc // _DAY_SECONDS)
        return self._folder / _DAYS / f"{day}-{self._pool}.json"

    def _write(self, path: Path, held: dict[str, int]) -> None:
        make(path.parent)
        if not path.exists():
            _sweep(path.parent, before=int(path.name.partition("-")[0]) - _KEPT_DAYS)
        fresh = path.with_suffix(".new")
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, json.dumps({"held_pico": held}))
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.replace(path)


def _read(path: Path) -> dict[str, int]:
    try:
        entry: Any = json.loads(path.read_bytes())
        held = entry["held_pico"]
        return {str(who): int(pico) for who, pico in held.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        # To take it for empty would let everybody spend anew.
        raise OSError(0, "is damaged; remove it to begin the day anew", str(path)) from error


def _sweep(folder: Path, *, before: int) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            day = path.name.partition("-")[0]
            if day.isdigit() and int(day) < before:
                path.unlink()
