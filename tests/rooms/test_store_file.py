"""The store as a file: who may open it, what it refuses, what it does about a dead run, and who may read it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing

import pytest

from batchllm.core.errors import StoreError
from batchllm.store import Deployment, Store, is_locked, schema
from batchllm.store.read import StoreReader, paused_since


def opened(path, name="job", **more) -> Store:
    return Store.open(path, name=name, spec_text="{}", spec_path=None, folder=str(path.parent), version="1", now_utc=1.0, **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "job.db"


def test_a_second_open_is_refused_with_the_process_in_its_message(path):
    store = opened(path)
    assert is_locked(path) == os.getpid()
    with pytest.raises(StoreError, match=rf"job\.db is in use by another run \(process {os.getpid()}\).*--if-running"):
        opened(path)
    store.close()
    assert is_locked(path) is None
    opened(path).close()


def test_another_name_of_the_same_file_is_no_second_lock(path, tmp_path):
    store = opened(path)
    link = tmp_path / "link.db"
    link.symlink_to(path)
    assert is_locked(link) == os.getpid()
    with pytest.raises(StoreError, match="in use by another run"):
        opened(link)
    store.close()


def test_who_only_asks_whether_a_run_is_there_is_in_nobodys_way(path, monkeypatch):
    opened(path).close()
    asking = os.open(f"{path}.lock", os.O_RDWR)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("batchllm.store.lock.time.sleep", lambda _: fcntl.flock(asking, fcntl.LOCK_UN))
    opened(path).close()
    os.close(asking)


def test_another_process_holds_it_until_it_is_killed(path):
    code = (
        "import sys, time; from pathlib import Path; from batchllm.store import Store\n"
        "s = Store.open(Path(sys.argv[1]), name='job', spec_text='', spec_path=None, folder='/', version='1', now_utc=1.0)\n"
        "s.begin_run(now_utc=1.0, version='1', options='{}', cap_pico=None); print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"held\n"
            with pytest.raises(StoreError, match=f"process {process.pid}"):
                opened(path)
            with pytest.raises(StoreError, match=f"process {process.pid}"):
                Store.existing(path)
            with StoreReader(path) as reader:  # reading is free
                assert reader.job()["name"] == "job"
        finally:
            process.kill()
            process.wait(10)
    with closing(opened(path)) as store:
        assert store.connection.execute("SELECT ended_at IS NOT NULL FROM runs").fetchall() == [(1,)]


@pytest.mark.parametrize("mask", [0o022, 0o000])
def test_only_its_owner_may_read_it(path, mask):
    before = os.umask(mask)
    try:
        store = opened(path)
        store.begin_run(now_utc=1.0, version="1", options="{}", cap_pico=None)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes.keys() >= {"job.db", "job.db-wal", "job.db-shm", "job.db.lock"}
    assert set(modes.values()) == {0o600}


def test_after_close_one_file_is_the_whole_store(path, tmp_path):
    store = opened(path)
    store.begin_run(now_utc=1.0, version="1", options="{}", cap_pico=None)
    store.close()
    copy = tmp_path / "copy.db"
    copy.write_bytes(path.read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (1,)


def _text(path):
    path.write_text("this is no database, only a long text" * 100)


def _foreign(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")


def _newer(path):
    opened(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 999")


def _other_job(path):
    opened(path, name="other").close()


def _folder(path):
    path.mkdir()


REFUSED = [
    (_text, "no SQLite file"),
    (_foreign, "not a batchllm store"),
    (_newer, "newer batchllm .schema 999"),
    (_other_job, "belongs to the job 'other', not to 'job'.*--name"),
    (_folder, "--store"),
]


@pytest.mark.parametrize(("make", "words"), REFUSED, ids=[make.__name__ for make, _ in REFUSED])
def test_what_is_refused_is_left_as_it_was(path, make, words):
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError, match=words) as caught:
        opened(path)
    assert caught.value.exit_code == 5
    assert str(path) in str(caught.value)
    assert before == (path.read_bytes() if path.is_file() else None)
    assert is_locked(path) is None


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--store"):
        opened(tmp_path / "file" / "job.db")


def test_there_must_be_a_store_to_change_or_read(path):
    with pytest.raises(StoreError, match="batchllm run"):
        Store.existing(path)
    with pytest.raises(StoreError, match="batchllm run"):
        StoreReader(path)
    assert not path.exists()


def test_what_a_dead_run_had_in_flight_is_possibly_billed(path):
    store = opened(path)
    store.begin_run(now_utc=1.0, version="1", options="{}", cap_pico=None)
    number = store.deployment(Deployment(name="m", provider="openai", base_url="", model="x"))
    row = (
        "INSERT INTO attempt_log (row_key, attempt, kind, deployment, simulated, started_at, reserved_pico, run, outcome, billed, cost_pico, counted)"
    )
    for attempt, (outcome, billed, reserved, cost) in enumerate(
        [("in_flight", "maybe", 50, None), ("ok", "yes", 70, 20), ("timeout", "maybe", 30, None)], 1
    ):
        store.connection.execute(f"{row} VALUES (1, {attempt}, 'first', {number}, 0, 1.0, {reserved}, 1, '{outcome}', '{billed}', ?, 1)", (cost,))
    store.close()  # as a kill would leave it: nothing is said about the end of the run
    with closing(opened(path)) as store:
        log = store.connection.execute("SELECT outcome, billed, counted FROM attempt_log ORDER BY attempt").fetchall()
        assert log == [("cancelled", "maybe", 0), ("ok", "yes", 1), ("timeout", "maybe", 1)]
        totals = store.totals(simulated=False)
        assert (totals.spent_pico, totals.reserved_pico) == (20, 80)
        assert store.totals(simulated=True).reserved_pico == 0
        assert store.next_attempt_id() == 4
        assert store.answered() == {number}


def test_deployments_are_numbered_once(path):
    one = Deployment(name="m", provider="openai", base_url="", model="x")
    other = Deployment(name="m", provider="openai", base_url="http://localhost", model="x")
    with closing(opened(path)) as store:
        first, second = store.deployment(one), store.deployment(other)
        assert (store.deployment(one), first != second) == (first, True)
        assert store.deployments() == {first: one, second: other}
    with closing(opened(path)) as store:
        assert store.deployment(other) == second


def test_the_job_id_stays_and_the_spec_is_the_last_one(path):
    with closing(opened(path)) as store:
        job_id = store.job_id
    with closing(Store.open(path, name="job", spec_text="new", spec_path="x.yaml", folder="/", version="2", now_utc=5.0)) as store:
        job = store.job()
        assert (store.job_id, job["spec"], job["version"], job["created_at"]) == (job_id, "new", "2", 1.0)


def test_durability_is_what_the_spec_says(path):
    for word, level in (("full", 2), ("normal", 1)):
        with closing(opened(path, durability=word)) as store:
            assert store.connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_a_store_of_an_older_version_gets_what_is_new(path):
    with closing(opened(path)) as store:
        # As version 1 left it.
        store.connection.executescript(
            "DROP TABLE changes; DROP INDEX rows_pin; PRAGMA user_version = 1; DELETE FROM _sqlite_migrations WHERE name = '0002_changes'"
        )
    with StoreReader(path) as reader:
        assert paused_since(reader.connection, 1) is None
    with closing(opened(path)) as store:
        assert store.connection.execute("SELECT count(*) FROM changes").fetchone() == (0,)
        assert store.connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
        assert store.pins() == []
