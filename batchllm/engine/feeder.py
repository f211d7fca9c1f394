"""Brings rows to the lanes: reads a chunk, finds its rows in the store, and hands on those that still need an answer - no faster than lanes take them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from batchllm.core.events import Note
from batchllm.core.nouns import Result, Row, RowError
from batchllm.engine.asking import Asking, Asks
from batchllm.engine.changes import Changes
from batchllm.engine.compare import Judge
from batchllm.engine.control import Control
from batchllm.engine.lane import Lane
from batchllm.engine.preference import ordered
from batchllm.engine.reader import Reader
from batchllm.engine.sampling import Sample
from batchllm.engine.source import Planned, Source, raw_fingerprint
from batchllm.engine.stop import Stop
from batchllm.engine.work import Work
from batchllm.store.intake import Bits, Intake, carry, load_answers, load_histories, pending_at
from batchllm.store.records import FAILED, NO_HISTORY, OK, PENDING, Answer, History, Known
from batchllm.store.samples import load_samples
from batchllm.store.store import reopen
from batchllm.store.stored import results_of
from batchllm.store.twins import name_sources_anew

if TYPE_CHECKING:
    from batchllm.engine.context import Context


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
        changes: Changes,
        inline: bool,
        put: Callable[[Lane, Work], Any],
        control: Control,
        on_known: Callable[[list[Result]], None] | None,
        on_met: Callable[[list[int]], None] | None,
        judge: Judge | None,
    ) -> None:
        self._run = run
        self._source = source
        self._lanes = lanes
        self._changes = changes
        self._inline = inline
        self._put = put
        self.control = control
        self._on_known = on_known if source.is_stream else None
        self._on_met = on_met if source.is_stream else None
        self._judge = judge
        """For a stream, which no pass over all rows has compared before."""
        self._intake: Intake | None = None
        self._asking = Asking(run, source, lanes, inline=inline)
        self.finished = False
        self.put_back = PutBack()
        self._kept_samples: dict[int, dict[int, tuple[Answer, str]]] = {}

    async def feed(self) -> None:
        """Reads to the end (or to the stop), then notes in the store that the end is known."""
        run = self._run
        self._intake = await run.writer.call(
            lambda connection: Intake(connection, fresh=self._changes.fresh, stream=self._source.is_stream, adding=True)
        )
        reader = Reader(self._source, run.stopper, inline=self._inline)
        self._source.unnamed_models = 0  # a comparison has counted them, too
        nth = 0
        complete = True
        while True:
            rows = await reader.next()
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
                # The end of a pipe isn't waited for: it may be silent for hours.
                complete = not self._source.is_stream and await reader.next() is None
                break
        await run.writer.call(lambda connection: self._note_end(connection, nth, complete=complete))
        if unnamed := self._source.unnamed_models:
            words = f"{unnamed:,} rows name a model in their `body` that is none of this job's; they went where its routes send them"
            run.listener(Note(level="warning", text=words))
        if nth == 0 and self._source.looked_at:
            run.listener(Note(level="warning", text=f"input.where leaves none of the {self._source.looked_at:,} rows"))
        run.outcomes.tally.total = run.outcomes.tally.seen
        self.finished = True

    async def feed_again(self) -> None:
        """Reads files once more, for the rows that were put back and that no reading has met since. All earlier work is done, so what is pending there is in
        nobody's hands.
        """
        run, source = self._run, self._source
        back, self.put_back = self.put_back, PutBack()
        reader, nth = Reader(source, run.stopper, inline=self._inline), 0
        while (rows := await reader.next()) is not None and not (source.limit is not None and nth >= source.limit):
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
        found = [(row, known.get((row.position, row.identity)), at) for at, row in enumerate(rows, nth)]
        todo = [(row, one) for row, one, at in found if one is not None and self._source.in_scope(row, at)]
        if run.outcomes.sampling is not None:
            self._kept_samples = await run.writer.call(lambda connection: load_samples(connection, [one.row_key for _, one in todo]))
        asks = await self._asking.asks(todo)
        for row, one in todo:
            if run.stopper.stop is not None:
                return
            if back.state(row.position) == OK:
                tally.ok -= 1
            else:
                tally.failed -= 1
            await self._hand_on(row, one, histories.get(one.row_key, NO_HISTORY), asks.get(one.row_key))

    def _note_end(self, connection: sqlite3.Connection, nth: int, *, complete: bool) -> None:
        if not complete:
            return
        if not self._source.is_stream:
            assert self._intake is not None
            self._intake.remove_unseen()
            if self._intake.renumbered:
                name_sources_anew(connection)
        total = nth if not self._source.is_stream else connection.execute("SELECT count(*) FROM rows WHERE row IS NOT NULL").fetchone()[0]
        connection.execute("UPDATE job SET total_rows = ?", (total,))
        if self._source.covers_all(nth):
            # Else changed rows out of this run's scope are still to be noticed.
            # Nor is it noted what files the rows attach: the next run looks at them again.
            record = None if self._source.drafter.attaches_beyond else self._changes.record
            connection.execute("UPDATE job SET inputs = ?, spec_digest = ?", (record, self._changes.spec_digest))

    def _match(self, connection: sqlite3.Connection, rows: list[Row]) -> tuple[list[Known], dict[int, History]]:
        assert self._intake is not None
        known = self._intake.take(rows)
        if self._changes.fresh:
            return known, {}
        compared = self._changes.comparison
        if compared is not None:
            again = [
                one.row_key for one in known if one.row_key in compared.changed_failed or (self._changes.rerun and one.row_key in compared.changed_ok)
            ]
            if again:
                reopen(connection, again, reason="changed", now_utc=self._run.clock.utc(), changed=True)
            if self._run.spec.output.keep:
                # The columns may have changed, or been asked for after the answers came.
                pairs = zip(rows, known, strict=True)
                carry(connection, [(self._source.keep(row), one.row_key) for row, one in pairs if one.state != PENDING and row.fields])
        return known, load_histories(connection, [one.row_key for one in known if one.state == PENDING or self._is_again(one)])

    def _is_again(self, one: Known) -> bool:
        compared = self._changes.comparison
        if compared is None or one.new:
            return False
        return one.row_key in compared.changed_failed or (self._changes.rerun and one.row_key in compared.changed_ok)

    async def _chunk(self, rows: list[Row], nth: int) -> None:
        run, source = self._run, self._source
        tally = run.outcomes.tally
        done: list[int] = []
        known, histories = await run.writer.call(lambda connection: self._match(connection, rows))
        if run.outcomes.sampling is not None and not self._changes.fresh:
            # By the chunk: what is kept of rows that lack some of their answers.
            self._kept_samples = await run.writer.call(lambda connection: load_samples(connection, [one.row_key for one in known]))
        again = await self._outdated(rows, known, nth)
        if again:
            histories |= await run.writer.call(lambda connection: load_histories(connection, again))

        def is_due(one: Known) -> bool:
            return one.state == PENDING or one.row_key in again or self._is_again(one)

        if self._on_met is not None:
            self._on_met([one.position for at, (row, one) in enumerate(zip(rows, known, strict=True), nth) if source.in_scope(row, at)])
        asks: dict[int, Asks] = {}
        if self._asking.applies:
            pairs = enumerate(zip(rows, known, strict=True), nth)
            asks = await self._asking.asks([(row, one) for at, (row, one) in pairs if is_due(one) and source.in_scope(row, at)])
        for at, (row, one) in enumerate(zip(rows, known, strict=True), nth):
            if not source.in_scope(row, at):
                continue
            if run.stopper.stop is not None:
                return
            tally.seen += 1
            if not is_due(one):
                if one.state == OK:
                    tally.ok += 1
                else:
                    tally.failed += 1
                done.append(one.row_key)
                continue
            await self._hand_on(row, one, histories.get(one.row_key, NO_HISTORY), asks.get(one.row_key))
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

    def _chain(self, planned: Planned) -> tuple[Lane, ...]:
        lanes = tuple(self._lanes[name] for name in planned.chain)
        return ordered(lanes, self._run.spec.prefer, self._run.clock.utc()) if len(lanes) > 1 else lanes

    async def _hand_on(self, row: Row, one: Known, history: History, asks: Asks | None) -> None:
        run, source = self._run, self._source
        planned = asks.planned if asks is not None else await self._asking.plan(row, one)
        bad = isinstance(planned, RowError)
        work = Work(
            row_key=one.row_key,
            position=one.position,
            custom_id=one.custom_id,
            draft=None if isinstance(planned, RowError) else planned.draft,
            chain=() if isinstance(planned, RowError) else self._chain(planned),
            history=history,
            kept=source.keep(row) if not bad or row.fields else None,
        )
        if run.answers.keeps_fields:
            work.fields = row.fields
        if isinstance(planned, RowError):
            run.outcomes.unfit(work, planned, raw_fingerprint(row))
            return
        work.route = planned.rule
        kept_samples = self._kept_samples.get(one.row_key)
        if kept_samples and run.outcomes.sampling is not None:
            run.outcomes.sampling.take(work, {nth: Sample(*sample) for nth, sample in kept_samples.items()}, (*work.chain, *run.ladder))
        if asks is not None and await self._asking.has_answer(work, row, planned, asks):
            return
        first = next((lane for lane in work.chain if not lane.is_out), work.chain[0])
        await self._put(first, work)


def _pending(connection: sqlite3.Connection, places: list[int]) -> tuple[dict[tuple[int, str], Known], dict[int, History]]:
    known = pending_at(connection, places)
    return known, load_histories(connection, [one.row_key for one in known.values()])
