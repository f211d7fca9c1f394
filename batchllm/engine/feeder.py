"""Brings rows to the lanes: reads a chunk, finds its rows in the store, and hands on those that still need an answer - no faster than lanes take them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from batchllm.core.errors import SpecError
from batchllm.core.events import Note
from batchllm.core.nouns import Result, Row, RowError
from batchllm.engine.compare import Comparison, Judge
from batchllm.engine.control import Control
from batchllm.engine.lane import Lane
from batchllm.engine.source import Source, duplicate, raw_fingerprint
from batchllm.engine.stop import Stop
from batchllm.engine.work import Work
from batchllm.store.intake import Bits, Intake, load_answers, load_histories, pending_at
from batchllm.store.records import FAILED, NO_HISTORY, OK, PENDING, History, Known
from batchllm.store.store import reopen
from batchllm.store.stored import results_of

if TYPE_CHECKING:
    from batchllm.engine.context import Context

Put = Callable[[Lane, Work], Any]


class PutBack:
    """Places of rows that a second terminal put back to pending, by what they were; a bit each."""

    def __init__(self) -> None:
        self._bits = {OK: Bits(), FAILED: Bits()}
        self.count = 0

    def add(self, position: int, state: int) -> None:
        """`state` is what the row was."""
        self._bits[state].add(position)
        self.count += 1

    def state(self, position: int) -> int | None:
        """What the row was; None when it wasn't put back."""
        return next((state for state, bits in self._bits.items() if position in bits), None)


class Feeder:
    """One reading of the input, and further ones for rows that are put back meanwhile."""

    def __init__(
        self,
        run: Context,
        source: Source,
        lanes: dict[str, Lane],
        *,
        fresh: bool,
        comparison: Comparison | None,
        rerun_changed: bool,
        inline: bool,
        record: str | None,
        spec_digest: str,
        put: Callable[[Lane, Work], Any],
        control: Control,
        on_known: Callable[[list[Result]], None] | None,
        judge: Judge | None,
    ) -> None:
        self._run = run
        self._source = source
        self._lanes = lanes
        self._fresh = fresh
        self._comparison = comparison
        self._rerun_changed = rerun_changed
        self._inline = inline
        self._record = record
        self._spec_digest = spec_digest
        self._put = put
        self.control = control
        self._on_known = on_known if source.is_stream else None
        self._judge = judge
        """For a stream, which no pass over all rows has compared before."""
        self._intake: Intake | None = None
        self.finished = False
        self.put_back = PutBack()

    async def feed(self) -> None:
        """Reads to the end (or to the stop), then notes in the store that the end is known."""
        run = self._run
        self._intake = await run.writer.call(lambda connection: Intake(connection, fresh=self._fresh, stream=self._source.is_stream, adding=True))
        chunks = self._source.chunks()
        self._source.unnamed_models = 0  # a comparison has counted them, too
        nth = 0
        complete = True
        while True:
            rows = await self._next(chunks)
            if rows is None:
                if run.stopper.stop is not None:
                    return
                break
            await self.control.wait_free()
            await self._chunk(rows, nth)
            nth += len(rows)
            if run.stopper.stop is not None:
                return
            if self._source.limited and nth >= (self._source.limit or 0):
                complete = self._source.limit is not None and await self._next(chunks) is None
                break
        await run.writer.call(lambda connection: self._note_end(connection, nth, complete=complete))
        if unnamed := self._source.unnamed_models:
            words = f"{unnamed:,} rows name a model in their `body` that is none of this job's; they went where its routes send them"
            run.listener(Note(level="warning", text=words))
        run.outcomes.tally.total = run.outcomes.tally.seen
        self.finished = True

    async def feed_again(self) -> None:
        """Reads files once more, for the rows that were put back and that no reading has met since. All earlier work is done, so what is pending there is in
        nobody's hands.
        """
        run, source = self._run, self._source
        back, self.put_back = self.put_back, PutBack()
        chunks, nth = source.chunks(), 0
        while (rows := await self._next(chunks)) is not None and not (source.limit is not None and nth >= source.limit):
            await self.control.wait_free()
            places = [row.position for row in rows if back.state(row.position) is not None]
            if places:
                await self._chunk_again(rows, nth, places, back)
            nth += len(rows)
            if run.stopper.stop is not None:
                return

    async def _chunk_again(self, rows: list[Row], nth: int, places: list[int], back: PutBack) -> None:
        run, tally = self._run, self._run.outcomes.tally
        known, histories = await run.writer.call(lambda connection: _pending(connection, places))
        for at, row in enumerate(rows, nth):
            one = known.get((row.position, row.identity))
            if one is None or not self._source.in_scope(row, at):
                continue
            if run.stopper.stop is not None:
                return
            if back.state(row.position) == OK:
                tally.ok -= 1
            else:
                tally.failed -= 1
            await self._hand_on(row, one, histories.get(one.row_key, NO_HISTORY))

    async def _next_of_stream(self, chunks: Iterator[list[Row]]) -> list[Row] | None:
        """From a thread that nobody waits for: a pipe may be silent for hours, and Ctrl-C must not wait for its next line."""
        loop = asyncio.get_running_loop()
        came: asyncio.Future[list[Row] | None] = loop.create_future()

        def tell(rows: list[Row] | None, error: BaseException | None) -> None:
            if not came.done():
                came.set_exception(error) if error is not None else came.set_result(rows)

        def pull() -> None:
            rows, failure = None, None
            try:
                rows = next(chunks, None)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the rows
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(tell, rows, failure)

        threading.Thread(target=pull, name="batchllm-stream", daemon=True).start()
        stopped = asyncio.ensure_future(self._run.stopper.wait())
        try:
            await asyncio.wait((came, stopped), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        return came.result() if came.done() else None

    async def _next(self, chunks: Iterator[list[Row]]) -> list[Row] | None:
        try:
            if self._inline:
                return next(chunks, None)
            if self._source.is_stream:
                return await self._next_of_stream(chunks)
            return await anyio.to_thread.run_sync(lambda: next(chunks, None), abandon_on_cancel=True)
        except SpecError as error:
            # A damaged file: what was read before that point is worked on, and the run says where it broke.
            self._run.stopper.set(Stop(exit_code=2, stopped_by=None, message=str(error)))
            return None

    def _note_end(self, connection: sqlite3.Connection, nth: int, *, complete: bool) -> None:
        if not complete:
            return
        if not self._source.is_stream:
            assert self._intake is not None
            self._intake.remove_unseen()
        total = nth if not self._source.is_stream else connection.execute("SELECT count(*) FROM rows WHERE row IS NOT NULL").fetchone()[0]
        connection.execute("UPDATE job SET total_rows = ?", (total,))
        if self._source.covers_all(nth):
            # Else changed rows out of this run's scope are still to be noticed.
            connection.execute("UPDATE job SET inputs = ?, spec_digest = ?", (self._record, self._spec_digest))

    def _match(self, connection: sqlite3.Connection, rows: list[Row]) -> tuple[list[Known], dict[int, History]]:
        assert self._intake is not None
        known = self._intake.take(rows)
        if self._fresh:
            return known, {}
        compared = self._comparison
        if compared is not None:
            again = [
                one.row_key for one in known if one.row_key in compared.changed_failed or (self._rerun_changed and one.row_key in compared.changed_ok)
            ]
            if again:
                reopen(connection, again, reason="changed", now_utc=self._run.clock.utc(), changed=True)
        return known, load_histories(connection, [one.row_key for one in known if one.state == PENDING or self._is_again(one)])

    def _is_again(self, one: Known) -> bool:
        compared = self._comparison
        if compared is None or one.new:
            return False
        return one.row_key in compared.changed_failed or (self._rerun_changed and one.row_key in compared.changed_ok)

    async def _chunk(self, rows: list[Row], nth: int) -> None:
        run, source = self._run, self._source
        tally = run.outcomes.tally
        done: list[int] = []
        known, histories = await run.writer.call(lambda connection: self._match(connection, rows))
        again = await self._outdated(rows, known, nth)
        if again:
            histories |= await run.writer.call(lambda connection: load_histories(connection, again))
        for at, (row, one) in enumerate(zip(rows, known, strict=True), nth):
            if not source.in_scope(row, at):
                continue
            if run.stopper.stop is not None:
                return
            tally.seen += 1
            if one.state != PENDING and one.row_key not in again and not self._is_again(one):
                if one.state == OK:
                    tally.ok += 1
                else:
                    tally.failed += 1
                done.append(one.row_key)
                continue
            await self._hand_on(row, one, histories.get(one.row_key, NO_HISTORY))
        if done and self._on_known is not None:
            self._on_known(await run.writer.call(lambda connection: results_of(connection, done)))

    async def _outdated(self, rows: list[Row], known: list[Known], nth: int) -> list[int]:
        """Finished rows of a stream whose outcome was given to another request: put back to pending, as far as `on_change` lets them."""
        run, judge = self._run, self._judge
        done = [one.row_key for one in known if one.state != PENDING]
        if judge is None or not done:
            return []
        answers = await run.writer.call(lambda connection: load_answers(connection, done))
        again: list[int] = []
        for at, (row, one) in enumerate(zip(rows, known, strict=True), nth):
            is_repeat = one.nth > 1 and row.identity.startswith("id:")
            if one.state == PENDING or is_repeat or not self._source.in_scope(row, at):
                continue
            if judge.stands(self._source.plan(row, one.pin), *answers.get(one.row_key, (None, None))):
                continue
            if one.state != OK or run.spec.on_change == "rerun":
                again.append(one.row_key)
            elif run.spec.on_change != "keep":
                words = (
                    f"{row.place}: this row was answered before and now asks something else; say what to do: --on-change rerun or --on-change keep"
                )
                run.stopper.set(Stop(exit_code=2, stopped_by=None, message=words))
                return []
        if again:
            now = run.clock.utc()
            await run.writer.call(lambda connection: reopen(connection, again, reason="changed", now_utc=now, changed=True))
        return again

    async def _hand_on(self, row: Row, one: Known, history: History) -> None:
        run, source = self._run, self._source
        is_repeat = one.nth > 1 and row.identity.startswith("id:")
        planned = duplicate(row) if is_repeat else source.plan(row, one.pin)
        bad = isinstance(planned, RowError)
        work = Work(
            row_key=one.row_key,
            position=one.position,
            custom_id=one.custom_id,
            draft=None if isinstance(planned, RowError) else planned.draft,
            chain=() if isinstance(planned, RowError) else tuple(self._lanes[name] for name in planned.chain),
            history=history,
            kept=source.keep(row) if not bad or row.fields else None,
        )
        if isinstance(planned, RowError):
            run.outcomes.unfit(work, planned, raw_fingerprint(row))
            return
        first = next((lane for lane in work.chain if lane.out is None), work.chain[0])
        await self._put(first, work)


def _pending(connection: sqlite3.Connection, places: list[int]) -> tuple[dict[tuple[int, str], Known], dict[int, History]]:
    known = pending_at(connection, places)
    return known, load_histories(connection, [one.row_key for one in known.values()])
