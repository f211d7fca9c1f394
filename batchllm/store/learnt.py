"""What runs learn of a model, kept for the next one: how far input estimates are off, how long answers get, how much of a prompt comes from a cache.

It only paces requests and tells forecasts; nothing is lost when a crash loses the last few seconds of it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from batchllm.core import json


class LearntModel(NamedTuple):
    """A row of `learnt`."""

    estimated: float | None
    """Sum of recent input estimates; `counted` / `estimated` is the ratio to multiply estimates by."""
    counted: float | None
    cached_share: float | None
    """Of input tokens, the part read from the provider's cache."""
    outputs: Mapping[str, float]
    """How often answers were how long, by the classes of `tokens.quantile`."""


def load_learnt(connection: sqlite3.Connection) -> dict[int, LearntModel]:
    """By deployment."""
    found: dict[int, LearntModel] = {}
    for key, estimated, counted, cached_share, outputs in connection.execute(
        "SELECT deployment, estimated, counted, cached_share, outputs FROM learnt"
    ):
        found[key] = LearntModel(estimated, counted, cached_share, json.loads(outputs) if outputs else {})
    return found


def save_learnt(connection: sqlite3.Connection, learnt: Iterable[tuple[int, LearntModel]], *, now_utc: float) -> None:
    """Replaces what was known of these deployments; inside the caller's transaction."""
    connection.executemany(
        "INSERT OR REPLACE INTO learnt (deployment, learnt_at, estimated, counted, cached_share, outputs) VALUES (?, ?, ?, ?, ?, ?)",
        [(key, now_utc, one.estimated, one.counted, one.cached_share, json.text(dict(one.outputs))) for key, one in learnt],
    )
