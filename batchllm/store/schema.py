"""The schema of the store, as append-only migrations, and the public views on it.

Public names (contract 5) are views where the stored form is narrower: money is stored as integer pico-dollars and times as seconds since 1970, the views
show `_usd` and ISO times. Never edit a migration that was released: append one. Views are dropped and made anew at each upgrade, so they may change freely.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from batchllm.store.samples import SAMPLES
from batchllm.store.views import create_answers

if TYPE_CHECKING:
    from sqlite_utils import Database

APPLICATION_ID = 0x62_6C_6C_6D  # "bllm"
VERSION = 3
"""The number of the newest migration; a store with a larger `user_version` was written by a newer program."""

_FIRST = """
CREATE TABLE job (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    job_id TEXT NOT NULL,
    name TEXT NOT NULL,
    spec TEXT NOT NULL,
    spec_path TEXT,
    folder TEXT NOT NULL,
    created_at REAL NOT NULL,
    version TEXT NOT NULL,
    inputs TEXT,
    spec_digest TEXT,
    numbered INTEGER,
    total_rows INTEGER
);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    started_at REAL NOT NULL,
    ended_at REAL,
    pid INTEGER NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    options TEXT NOT NULL,
    exit_code INTEGER,
    stopped_by TEXT,
    message TEXT,
    limited_by TEXT,
    cap_pico INTEGER,
    seen_at REAL
);
CREATE TABLE deployments (
    deployment INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    provider TEXT NOT NULL,
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    UNIQUE (name, provider, base_url, model)
);
CREATE TABLE rows (
    row_key INTEGER PRIMARY KEY,
    identity TEXT NOT NULL,
    nth INTEGER NOT NULL DEFAULT 1,
    row INTEGER,
    custom_id TEXT,
    state INTEGER NOT NULL DEFAULT 0,
    pin TEXT,
    failures_after INTEGER NOT NULL DEFAULT 0,
    cost_after INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX rows_identity ON rows (identity, nth);
CREATE INDEX rows_row ON rows (row);
CREATE TABLE answers (
    row_key INTEGER PRIMARY KEY,
    status TEXT NOT NULL,
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
    cost_pico INTEGER,
    attempts INTEGER NOT NULL,
    latency_seconds REAL,
    error_code TEXT,
    error_message TEXT,
    error_http_status INTEGER,
    error_provider_code TEXT,
    error_retryable INTEGER,
    shared_from TEXT,
    fingerprint TEXT,
    run INTEGER NOT NULL,
    finished_at REAL NOT NULL,
    input TEXT,
    attempt_id INTEGER
);
CREATE TABLE attempt_log (
    attempt_id INTEGER PRIMARY KEY,
    row_key INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    deployment INTEGER NOT NULL,
    simulated INTEGER NOT NULL,
    started_at REAL NOT NULL,
    reserved_pico INTEGER,
    price_version TEXT,
    run INTEGER NOT NULL,
    ended_at REAL,
    http_status INTEGER,
    outcome TEXT NOT NULL DEFAULT 'in_flight',
    counted INTEGER NOT NULL DEFAULT 0,
    refused INTEGER NOT NULL DEFAULT 0,
    billed TEXT NOT NULL DEFAULT 'maybe',
    cost_pico INTEGER,
    provider_cost_usd REAL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    request_id TEXT,
    message TEXT,
    settled INTEGER
);
CREATE INDEX attempt_log_row ON attempt_log (row_key);
CREATE TABLE bodies (
    attempt_id INTEGER PRIMARY KEY,
    row_key INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    request TEXT,
    response TEXT
);
CREATE TABLE history (
    id INTEGER PRIMARY KEY,
    replaced_at REAL NOT NULL,
    reason TEXT NOT NULL,
    row_key INTEGER NOT NULL,
    custom_id TEXT,
    status TEXT NOT NULL,
    output TEXT,
    parsed TEXT,
    model TEXT,
    provider_model TEXT,
    finish_reason TEXT,
    tool_calls TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cached_input_tokens INTEGER,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    cost_pico INTEGER,
    cost_usd REAL GENERATED ALWAYS AS (cost_pico / 1e12) VIRTUAL,
    attempts INTEGER,
    latency_seconds REAL,
    error_code TEXT,
    error_message TEXT,
    fingerprint TEXT,
    run INTEGER,
    finished_at REAL
);
CREATE INDEX history_row ON history (row_key);
CREATE TABLE batches (
    batch_id TEXT PRIMARY KEY,
    deployment INTEGER NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    rows INTEGER NOT NULL
);
CREATE TABLE settlements (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    word TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    reserved_pico INTEGER NOT NULL,
    billed_pico INTEGER NOT NULL,
    simulated INTEGER NOT NULL
);
"""

_SECOND = """
CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    run INTEGER NOT NULL,
    what TEXT NOT NULL,
    value TEXT
);
CREATE INDEX rows_pin ON rows (pin) WHERE pin IS NOT NULL;
"""

_THIRD = f"""
ALTER TABLE answers RENAME TO outcomes;
ALTER TABLE outcomes ADD COLUMN twin BLOB;
CREATE INDEX outcomes_twin ON outcomes (twin) WHERE twin IS NOT NULL AND shared_from IS NULL;
CREATE INDEX outcomes_shared ON outcomes (row_key) WHERE shared_from IS NOT NULL;
ALTER TABLE attempt_log ADD COLUMN reserved_tokens INTEGER;
ALTER TABLE attempt_log ADD COLUMN route INTEGER;
ALTER TABLE attempt_log ADD COLUMN first_token_seconds REAL;
ALTER TABLE attempt_log ADD COLUMN pack INTEGER;
ALTER TABLE attempt_log ADD COLUMN trimmed INTEGER;
ALTER TABLE attempt_log ADD COLUMN key_env TEXT;
ALTER TABLE runs ADD COLUMN caps TEXT;
CREATE TABLE learnt (
    deployment INTEGER PRIMARY KEY,
    learnt_at REAL NOT NULL,
    estimated REAL,
    counted REAL,
    cached_share REAL,
    outputs TEXT
);
{SAMPLES}
"""

UNPRICED = "(cost_pico IS NULL AND outcome != 'in_flight' AND (billed = 'yes' OR (billed = 'maybe' AND reserved_pico IS NULL)))"
"""Attempts that cost something at a price that isn't known, as a condition over `attempt_log`."""
_KNOWN_USD = f"CASE WHEN sum(l.cost_pico) = 0 AND sum({UNPRICED}) > 0 THEN NULL ELSE sum(l.cost_pico) / 1e12 END"
"""The zeros of refused requests are no sum beside costs that aren't known: unknown is not zero."""
_SPEND = f"""l.simulated, count(*) AS attempts, {_KNOWN_USD} AS cost_usd,
       sum(CASE WHEN l.billed = 'maybe' THEN l.reserved_pico END) / 1e12 AS reserved_usd,
       sum(l.input_tokens) AS input_tokens, sum(l.output_tokens) AS output_tokens, sum({UNPRICED}) AS unpriced"""

_TIME = "strftime('%Y-%m-%dT%H:%M:%fZ', {0}, 'unixepoch')"

VIEWS = {
    "results": f"""
SELECT r.row_key, r.row, r.custom_id, a.status, a.output, a.parsed, d.name AS model, a.provider_model, a.finish_reason,
       a.input_tokens, a.output_tokens, a.cached_input_tokens, a.cache_write_tokens, a.reasoning_tokens,
       a.cost_pico / 1e12 AS cost_usd, a.attempts, a.latency_seconds, a.error_code, a.error_message, a.shared_from,
       a.fingerprint, a.run, {_TIME.format("a.finished_at")} AS finished_at, a.input,
       a.tool_calls, a.error_http_status, a.error_provider_code, a.error_retryable, a.attempt_id, a.samples, a.agreement
FROM rows r JOIN outcomes a ON a.row_key = r.row_key LEFT JOIN deployments d ON d.deployment = a.deployment
WHERE r.row IS NOT NULL
""",  # noqa: S608 - constants only
    "attempts": f"""
SELECT l.row_key, r.custom_id, l.attempt, l.kind, d.name AS model, {_TIME.format("l.started_at")} AS started_at, {_TIME.format("l.ended_at")} AS ended_at,
       l.http_status, l.outcome, l.billed, l.reserved_pico / 1e12 AS reserved_usd, l.cost_pico / 1e12 AS cost_usd, l.request_id, l.run,
       l.attempt_id, l.counted, l.refused, l.simulated, l.price_version, l.provider_cost_usd, l.input_tokens, l.output_tokens, l.cached_input_tokens,
       l.cache_write_tokens, l.reasoning_tokens, l.message, l.settled, l.reserved_pico, l.cost_pico, l.reserved_tokens, l.route, l.pack, l.trimmed, l.key_env,
       l.first_token_seconds, l.output_tokens / nullif((l.ended_at - l.started_at) - l.first_token_seconds, 0) AS tokens_per_second
FROM attempt_log l JOIN rows r ON r.row_key = l.row_key JOIN deployments d ON d.deployment = l.deployment
""",  # noqa: S608 - constants only
    "summary": f"""
SELECT j.name AS job, j.total_rows AS total,
       (SELECT count(*) FROM rows WHERE row IS NOT NULL AND state = 1) AS ok,
       (SELECT count(*) FROM rows WHERE row IS NOT NULL AND state = 2) AS failed,
       (SELECT count(*) FROM rows WHERE row IS NOT NULL AND state = 0) AS pending_known,
       (SELECT count(*) FROM attempt_log) AS attempts,
       (SELECT {_KNOWN_USD} FROM attempt_log l WHERE NOT simulated) AS cost_usd,
       (SELECT sum(reserved_pico) / 1e12 FROM attempt_log WHERE NOT simulated AND billed = 'maybe') AS reserved_usd,
       (SELECT {_KNOWN_USD} FROM attempt_log l WHERE simulated) AS simulated_cost_usd,
       (SELECT sum(reserved_pico) / 1e12 FROM attempt_log WHERE simulated AND billed = 'maybe') AS simulated_reserved_usd
FROM job j
""",  # noqa: S608 - constants only
    "errors": """
SELECT a.error_code AS code, a.error_http_status AS http_status, a.error_provider_code AS provider_code, d.name AS model,
       count(*) AS rows, min(r.row) AS first_row, min(r.custom_id) AS example_id, min(a.error_message) AS example
FROM outcomes a JOIN rows r ON r.row_key = a.row_key LEFT JOIN deployments d ON d.deployment = a.deployment
WHERE a.status = 'failed' AND r.row IS NOT NULL
GROUP BY 1, 2, 3, 4 ORDER BY rows DESC
""",
    "spend_by_model": f"""
SELECT d.name AS model, d.provider, d.model AS model_id, {_SPEND}
FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment GROUP BY l.deployment, l.simulated
""",  # noqa: S608 - constants only
    "spend_by_day": f"""
SELECT strftime('%Y-%m-%d', l.started_at, 'unixepoch') AS day, {_SPEND}
FROM attempt_log l GROUP BY 1, l.simulated
""",  # noqa: S608 - constants only
    "spend_by_kind": f"""
SELECT l.kind, {_SPEND}
FROM attempt_log l GROUP BY l.kind, l.simulated
""",  # noqa: S608 - constants only
    "spend_by_route": f"""
SELECT l.route, {_SPEND}
FROM attempt_log l GROUP BY l.route, l.simulated
""",  # noqa: S608 - constants only
}


def _execute(db: Database, script: str) -> None:
    # Not `executescript`, which would end the migration's transaction.
    for statement in script.split(";\n"):
        if statement.strip():
            db.execute(statement)


def _is_current(connection: sqlite3.Connection) -> bool:
    """Whether this very program's schema is there, views and all (they may change without a new version)."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != VERSION:
        return False
    there = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'view'").fetchall())
    return "answers" in there and all(there.get(name) == f"CREATE VIEW {name} AS {query}".rstrip() for name, query in VIEWS.items())


def migrate(connection: sqlite3.Connection) -> None:
    """Brings a store to this program's schema; each migration is one transaction, recorded by sqlite-utils."""
    if _is_current(connection):
        return
    # sqlite-utils is slow to import; only a store that is new or old needs it.
    from sqlite_utils import Database, Migrations

    migrations = Migrations("batchllm")

    @migrations(name="0001_first")
    def first(db: Database) -> None:
        _execute(db, _FIRST)

    @migrations(name="0002_changes")
    def changes(db: Database) -> None:
        _execute(db, _SECOND)

    @migrations(name="0003_kinds_of_request")
    def kinds(db: Database) -> None:
        # The name `answers` is for the view that users look at; the views on the table are made anew below.
        for name in VIEWS:
            db.execute(f"DROP VIEW IF EXISTS {name}")
        _execute(db, _THIRD)

    # Plug-ins of the user's sqlite-utils must not touch the store.
    migrations.apply(Database(connection, execute_plugins=False))
    connection.execute("BEGIN IMMEDIATE")
    for name, query in VIEWS.items():
        connection.execute(f"DROP VIEW IF EXISTS {name}")
        connection.execute(f"CREATE VIEW {name} AS {query}")
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'view' AND name = 'answers'").fetchone() is None:
        create_answers(connection, None, whole=False)
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
