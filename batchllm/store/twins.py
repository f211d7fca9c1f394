"""Outcomes that further rows may share: those of rows that were asked themselves, by what their requests have in common.

A shared outcome is not shared on: so a row that is put back to pending by `retry` is really asked again, whoever shared its old answer.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from batchllm.core.nouns import Code, RowError
from batchllm.store.records import Answer

_COLUMNS = ", ".join(f"o.{name}" for name in Answer._fields)


class Found(NamedTuple):
    """An outcome with what names it."""

    answer: Answer
    custom_id: str | None
    model: str | None


def load_twins(connection: sqlite3.Connection, keys: Collection[bytes]) -> dict[bytes, Found]:
    """The outcomes of these keys; of several the lowest ok one in input order."""
    if not keys:
        return {}
    marks = ", ".join("?" * len(keys))
    query = f"""
        SELECT {_COLUMNS}, r.custom_id, d.name FROM outcomes o JOIN rows r ON r.row_key = o.row_key LEFT JOIN deployments d ON d.deployment = o.deployment
        WHERE o.twin IN ({marks}) AND o.shared_from IS NULL
        ORDER BY o.status = 'ok', r.row IS NOT NULL, r.row DESC"""  # noqa: S608 - constant names and question marks
    found: dict[bytes, Found] = {}
    for *values, custom_id, model in connection.execute(query, list(keys)):
        answer = Answer(*values)
        assert answer.twin is not None
        # The last one stays: ok ones come last, and of those the lowest.
        found[answer.twin] = Found(answer, custom_id, model)
    return found


def error_of(answer: Answer) -> RowError | None:
    """Why it failed; None for an ok one."""
    if answer.error_code is None:
        return None
    return RowError(
        code=Code(answer.error_code),
        message=answer.error_message or "",
        http_status=answer.error_http_status,
        provider_code=answer.error_provider_code,
        retryable=bool(answer.error_retryable),
    )


def asked_anew(connection: sqlite3.Connection, row_keys: Collection[int]) -> set[int]:
    """Rows whose good answer a person put away (`retry`): they are to have a new one, not what anybody kept."""
    query = f"SELECT DISTINCT row_key FROM history WHERE row_key IN ({', '.join('?' * len(row_keys))}) AND reason = 'retry' AND status = 'ok'"  # noqa: S608 - question marks only
    return {key for (key,) in connection.execute(query, list(row_keys))}


def stop_sharing_failure(connection: sqlite3.Connection, row_key: int) -> None:
    """A row that shares a failure is put back to pending: it, and whoever asks the same from now on, is to be asked and not to fail alike once more."""
    connection.execute(
        """UPDATE outcomes SET twin = NULL WHERE status = 'failed' AND shared_from IS NULL
           AND twin = (SELECT twin FROM outcomes WHERE row_key = ? AND status = 'failed' AND shared_from IS NOT NULL)""",
        (row_key,),
    )


def name_sources_anew(connection: sqlite3.Connection) -> None:
    """Rows that are named by their numbers have moved: who shares an outcome names its source by the number that it has now."""
    connection.execute(
        """UPDATE outcomes SET shared_from = coalesce((
               SELECT r.custom_id FROM outcomes s JOIN rows r ON r.row_key = s.row_key
               WHERE s.twin = outcomes.twin AND s.shared_from IS NULL AND s.status = outcomes.status AND r.row IS NOT NULL ORDER BY r.row LIMIT 1), shared_from)
           WHERE shared_from IS NOT NULL AND twin IS NOT NULL"""
    )


def shared_rows(connection: sqlite3.Connection) -> int:
    """Present rows that share another one's outcome."""
    (count,) = connection.execute(
        "SELECT count(*) FROM outcomes o JOIN rows r ON r.row_key = o.row_key WHERE o.shared_from IS NOT NULL AND r.row IS NOT NULL"
    ).fetchone()
    return int(count)
