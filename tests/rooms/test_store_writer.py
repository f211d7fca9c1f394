"""The writer: who is told what, in which order things reach the disk, and what is left of it when a commit fails."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing

import pytest

from batchllm.core.errors import StoreError
from batchllm.core.nouns import Result
from batchllm.store import Answer, AttemptEnd, AttemptStart, Store
from batchllm.store.records import Body, Committed


def start(number: int, reserved: int = 10) -> AttemptStart:
    return AttemptStart(number, number, 1, "first", 1, 0, 1.0, reserved, None, 1)


def end(number: int, cost: int = 3) -> AttemptEnd:
    return AttemptEnd(2.0, 200, "ok", 0, 0, "yes", cost, None, 1, 1, 0, 0, 0, None, None, None, number)


def answer(key: int, **more) -> Answer:
    values = dict.fromkeys(Answer._fields)
    return Answer(**{**values, "row_key": key, "status": "ok", "attempts": 1, "run": 1, "finished_at": 3.0, "output": "fine", **more})


def note(key: int) -> Committed:
    return Committed(key, Result(custom_id=str(key), row=key, status="ok"))


class Desk:
    """A store with a writer, and what its listeners heard."""

    def __init__(self, path, *, inline: bool) -> None:
        self.path = path
        self.store = Store.open(path, name="job", spec_text="", spec_path=None, folder="/", version="1", now_utc=1.0, durability="normal")
        self.store.connection.executemany("INSERT INTO rows (row_key, identity, row) VALUES (?1, 'id:' || ?1, ?1)", [(key,) for key in range(1, 51)])
        self.committed: list[int] = []
        self.failures: list[StoreError] = []
        self.writer = self.store.start(
            inline=inline, on_commit=lambda notes: self.committed.extend(one.row_key for one in notes), on_failure=self.failures.append
        )

    def seen(self, query: str):
        """What another process would see: only what was committed."""
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def break_commits(self, table: str) -> None:
        self.store.connection.execute(f"CREATE TEMP TRIGGER broken BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END")

    def mend(self) -> None:
        self.store.connection.execute("DROP TRIGGER broken")


@pytest.fixture(params=[False, True], ids=["thread", "inline"])
def inline(request):
    return request.param


def at_desk(tmp_path, inline, main):
    async def run() -> None:
        desk = Desk(tmp_path / "job.db", inline=inline)
        try:
            await asyncio.wait_for(main(desk), 20)
        finally:
            desk.store.close()

    asyncio.run(run())


def test_whoever_awaits_the_journal_finds_it_on_disk(tmp_path, inline):
    async def main(desk):
        for number in (1, 2, 3):
            await desk.writer.journal(start(number))
            assert desk.seen("SELECT max(attempt_id) FROM attempt_log WHERE outcome = 'in_flight' AND billed = 'maybe'") == [(number,)]
        await desk.writer.close()

    at_desk(tmp_path, inline, main)


def test_listeners_hear_of_a_result_after_its_commit(tmp_path, inline):
    async def main(desk):
        await desk.writer.journal(start(1))
        desk.writer.end(end(1), Body(1, 1, 1, "q", "a"))
        desk.writer.answer(answer(1), note(1))
        await desk.writer.call(lambda connection: None)
        heard = desk.seen("SELECT status, output FROM results")
        assert (heard, desk.committed) == ([("ok", "fine")], [1])
        assert desk.seen("SELECT state FROM rows WHERE row_key = 1") == [(1,)]
        assert desk.seen("SELECT outcome, billed, cost_pico FROM attempt_log") == [("ok", "yes", 3)]
        assert desk.seen("SELECT request, response FROM bodies") == [("q", "a")]
        await desk.writer.close()

    at_desk(tmp_path, inline, main)


def test_a_reservation_never_reaches_the_disk_before_the_settlement_that_made_room_for_it(tmp_path):
    """Cap 10, one reservation at a time: whatever a reader sees at any instant, spent + reserved stays within what was booked before."""

    async def main(desk):
        promise = "SELECT coalesce(sum(CASE WHEN billed = 'maybe' THEN reserved_pico ELSE cost_pico END), 0) FROM attempt_log"
        worst = 0
        journalled = desk.writer.journal(start(1))
        for number in range(1, 120):
            await journalled
            desk.writer.end(end(number, cost=0), None)
            journalled = desk.writer.journal(start(number + 1))
            worst = max(worst, *desk.seen(promise)[0])
        await journalled
        await desk.writer.close()
        assert worst == 10

    at_desk(tmp_path, False, main)


def test_a_call_sees_what_was_asked_for_before_it(tmp_path, inline):
    async def main(desk):
        desk.writer.journal(start(1))
        desk.writer.end(end(1), None)
        desk.writer.answer(answer(1), None)
        count = await desk.writer.call(lambda connection: connection.execute("SELECT count(*) FROM results").fetchone()[0])
        assert count == 1
        await desk.writer.close()

    at_desk(tmp_path, inline, main)


@pytest.mark.parametrize("count", [1, 15, 16, 17, 40])
def test_groups_of_any_size_are_written_whole(tmp_path, count):
    async def main(desk):
        await asyncio.gather(*(desk.writer.journal(start(number)) for number in range(1, count + 1)))
        for number in range(1, count + 1):
            desk.writer.end(end(number, cost=number), None)
            desk.writer.answer(answer(number, status="ok" if number % 2 else "failed", output=str(number)), note(number))
        await desk.writer.close()
        assert desk.seen("SELECT count(*), sum(cost_pico) FROM attempt_log WHERE outcome = 'ok'") == [(count, count * (count + 1) // 2)]
        assert desk.seen("SELECT count(*), sum(CAST(output AS INTEGER)) FROM outcomes") == [(count, count * (count + 1) // 2)]
        assert dict(desk.seen("SELECT row_key, state FROM rows WHERE state != 0")) == {key: 1 if key % 2 else 2 for key in range(1, count + 1)}
        assert sorted(desk.committed) == list(range(1, count + 1))

    at_desk(tmp_path, False, main)


def test_after_a_failed_commit_journals_fail_and_paid_answers_are_kept(tmp_path):
    async def main(desk):
        await desk.writer.journal(start(1))
        desk.break_commits("attempt_log")
        desk.writer.end(end(1), None)
        desk.writer.answer(answer(1), note(1))
        with pytest.raises(StoreError, match="free some space"):
            await desk.writer.journal(start(2))
        with pytest.raises(StoreError):
            await desk.writer.journal(start(3))  # it stays broken
        with pytest.raises(StoreError):
            await desk.writer.call(lambda connection: None)
        desk.writer.answer(answer(4), note(4))
        assert (desk.committed, len(desk.failures)) == ([], 1)
        desk.mend()  # somebody made room
        await desk.writer.close()
        assert sorted(desk.committed) == [1, 4]
        assert desk.seen("SELECT row_key FROM results ORDER BY 1") == [(1,), (4,)]
        assert desk.seen("SELECT attempt_id, outcome FROM attempt_log") == [(1, "ok")]

    at_desk(tmp_path, False, main)


def test_nothing_is_said_to_be_written_when_it_is_not(tmp_path):
    async def main(desk):
        desk.break_commits("outcomes")
        desk.writer.answer(answer(1), note(1))
        with pytest.raises(StoreError, match="everything committed so far is safe"):
            await desk.writer.close()
        assert (desk.committed, desk.seen("SELECT count(*) FROM outcomes")) == ([], [(0,)])

    at_desk(tmp_path, False, main)


def test_a_full_file(tmp_path):
    """SQLite's own word for a full disk, by a cap on the file's pages."""

    async def main(desk):
        pages = desk.store.connection.execute("PRAGMA page_count").fetchone()[0]
        desk.store.connection.execute(f"PRAGMA max_page_count = {pages + 2}")

        async def fill() -> None:
            for number in range(1, 2000):
                await desk.writer.journal(start(number))
                desk.writer.end(end(number), Body(number, number, 1, "x" * 4000, None))

        with pytest.raises(StoreError, match=r"full.*free some space"):
            await fill()
        with pytest.raises(StoreError, match="full"):
            await desk.writer.close()
        written = desk.seen("SELECT count(*) FROM attempt_log")[0][0]
        assert written > 0

    at_desk(tmp_path, False, main)


def test_the_inline_writer_says_so_at_once(tmp_path):
    async def main(desk):
        desk.break_commits("attempt_log")
        with pytest.raises(StoreError, match="free some space"):
            await desk.writer.journal(start(1))
        assert len(desk.failures) == 1

    at_desk(tmp_path, True, main)


def test_a_call_that_raises_is_its_callers(tmp_path, inline):
    """It takes its group with it, so the writer is broken afterwards: calls are the engine's own and do not raise."""

    async def main(desk):
        with pytest.raises((StoreError, ZeroDivisionError)):
            await desk.writer.call(lambda connection: 1 / 0)
        assert desk.seen("SELECT count(*) FROM attempt_log") == [(0,)]
        await desk.writer.close()

    at_desk(tmp_path, inline, main)
