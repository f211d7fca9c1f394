"""Whether the model that answered is the one that was asked, under its dated name."""

from __future__ import annotations

import re
from functools import lru_cache

_DATE = re.compile(r"-20\d\d(-?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])")


@lru_cache(maxsize=1024)
def same_or_snapshot(asked: str, answered: str) -> bool:
    """True for the same id, or `asked` plus a date (`-2026-08-11`, `-20260811`); `x-latest` may answer as `x-20260811`.

    Decides whose price counts: a snapshot is billed by its own price, any other name (a gateway's, a local server's) by the price of the model asked.
    """
    if answered == asked:
        return True
    stem = asked.removesuffix("-latest")
    return answered.startswith(stem) and _DATE.fullmatch(answered, len(stem)) is not None
