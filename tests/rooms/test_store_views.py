"""The view `answers`, and stores from before its name was a table's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from batchllm.store import Store, schema
from batchllm.store.read import StoreReader
from batchllm.store.views import create_answers

ODD = ["plain", "Plain", "a.b", 'quo"te', "it's", "back\\slash", "row", "", "MODEL"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A store of schema 2 with one answer."""
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(schema._FIRST + schema._SECOND)
    connection.executescript(
        f"""PRAGMA application_id = {schema.APPLICATION_ID}; PRAGMA user_version = 2;
        CREATE TABLE _sqlite_migrations (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT);
        INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('batchllm', '0001_first', 'x'), ('batchllm', '0002_changes', 'x');
        INSERT INTO job (one, job_id, name, spec, folder, created_at, version) VALUES (1, 'j', 'old', '', '', 0, '0');
        INSERT INTO rows (row_key, identity, row, custom_id, state) VALUES (1, 'id:a', 0, 'a', 1);
        INSERT INTO deployments VALUES (1, 'm', 'openai', '', 'x');
        INSERT INTO answers (row_key, status, output, deployment, attempts, run, finished_at) VALUES (1, 'ok', 'hi', 1, 1, 1, 9);
        CREATE VIEW results AS SELECT r.row_key, r.row, a.status FROM rows r JOIN answers a ON a.row_key = r.row_key;
        """
    )
    connection.commit()
    connection.close()
    return path


def test_an_older_store_is_read_as_it_is(old: Path) -> None:
    with StoreReader(old) as reader:
        assert reader.all("SELECT output FROM outcomes") == [("hi",)]
        assert reader.one("PRAGMA main.user_version") == (2,)


def test_an_older_store_is_migrated_with_its_answers(old: Path) -> None:
    Store.existing(old).close()
    with StoreReader(old) as reader:
        assert [result.output for result in reader.results()] == ["hi"]
        assert reader.all("SELECT * FROM answers") == [(1, 0, "a", "m", "hi")]
        assert reader.one("PRAGMA main.user_version") == (schema.VERSION,)
    Store.existing(old).close()


def test_a_current_store_is_left_as_it_is_and_one_with_other_views_is_not(old: Path) -> None:
    Store.existing(old).close()
    with StoreReader(old) as reader:
        before = reader.one("PRAGMA main.schema_version")
    Store.existing(old).close()
    with StoreReader(old) as reader:
        assert reader.one("PRAGMA main.schema_version") == before
    connection = sqlite3.connect(old)
    connection.executescript("DROP VIEW errors; CREATE VIEW errors AS SELECT 1 AS one")
    connection.close()
    Store.existing(old).close()
    with StoreReader(old) as reader:
        assert reader.all("SELECT * FROM errors") == []


def test_any_property_becomes_a_column(old: Path) -> None:
    Store.existing(old).close()
    connection = sqlite3.connect(old)
    connection.execute(
        "UPDATE outcomes SET parsed = ?",
        ('{"plain": [1], "Plain": "x", "a.b": 2, "quo\\"te": 3, "it\'s": 4, "back\\\\slash": 5, "row": null, "": 7, "MODEL": true}',),
    )
    create_answers(connection, ODD, whole=False)
    cursor = connection.execute("SELECT * FROM answers")
    assert [column[0] for column in cursor.description][4:] == ["plain", "Plain_2", "a.b", 'quo"te', "it's", "back\\slash", "row_2", "", "MODEL_2"]
    assert cursor.fetchone()[4:8] == ("[1]", "x", 2, 3)
    before = connection.execute("PRAGMA schema_version").fetchone()
    create_answers(connection, ODD, whole=False)
    assert connection.execute("PRAGMA schema_version").fetchone() == before
    create_answers(connection, ["value"], whole=True)
    connection.execute("UPDATE outcomes SET parsed = '\"label\"'")
    assert connection.execute("SELECT value FROM answers").fetchall() == [("label",)]
    connection.close()
