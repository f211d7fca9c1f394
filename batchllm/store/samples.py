"""The good answers of rows that are to have several, kept one by one: what is paid for is there, even when a run ends before the last one of a row."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any

from batchllm.store.records import Answer

_KEPT = (
    "row_key", "output", "parsed", "deployment", "provider_model", "finish_reason", "tool_calls", "input_tokens", "output_tokens", "cached_input_tokens",
    "cache_write_tokens", "reasoning_tokens", "latency_seconds", "fingerprint", "run", "finished_at", "attempt_id",
)  # fmt: skip
SAMPLES = """
CREATE TABLE samples (
    row_key INTEGER NOT NULL,
    nth INTEGER NOT NULL,
    output TEXT,
    parsed TEXT,
    deployment INTEGER,
    provider_model TEXT,
    finish_reason TEXT,
    tool_calls TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    latency_seconds REAL,
    fingerprint TEXT,
    run INTEGER NOT NULL,
    finished_at REAL NOT NULL,
    attempt_id INTEGER,
    PRIMARY KEY (row_key, nth)
);
ALTER TABLE outcomes ADD COLUMN samples TEXT;
ALTER TABLE outcomes ADD COLUMN agreement REAL;
"""


def keep_sample(connection: sqlite3.Connection, nth: int, answer: Answer) -> None:
    """Keeps the nth answer of a row."""
    values = [getattr(answer, name) for name in _KEPT]
    connection.execute(
        f"INSERT OR REPLACE INTO samples (nth, {', '.join(_KEPT)}) VALUES ({', '.join('?' * (1 + len(_KEPT)))})",  # noqa: S608 - constant names
        [nth, *values],
    )


def load_samples(connection: sqlite3.Connection, row_keys: Collection[int]) -> dict[int, dict[int, tuple[Answer, str]]]:
    """Per row key and number, the kept answers with the names of the models that gave them."""
    if not row_keys:
        return {}
    query = f"""
        SELECT s.nth, d.name, {", ".join(f"s.{name}" for name in _KEPT)} FROM samples s JOIN deployments d ON d.deployment = s.deployment
        WHERE s.row_key IN ({", ".join("?" * len(row_keys))})"""  # noqa: S608 - constant names and question marks
    found: dict[int, dict[int, tuple[Answer, str]]] = {}
    for nth, model, *values in connection.execute(query, list(row_keys)):
        kept: dict[str, Any] = dict.fromkeys(Answer._fields, None) | dict(zip(_KEPT, values, strict=True)) | {"status": "ok", "attempts": 0}
        found.setdefault(values[0], {})[nth] = (Answer(**kept), model)
    return found


def forget_samples(connection: sqlite3.Connection, row_key: int) -> None:
    """A row with all its answers is asked again by a person's wish: none of the old ones counts."""
    connection.execute("DELETE FROM samples WHERE row_key = ? AND EXISTS (SELECT 1 FROM outcomes WHERE row_key = ?1 AND status = 'ok')", (row_key,))
