"""The fault simulation itself: its seeds are clean, they replay exactly, and it finds the bugs that it exists for when they are planted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from batchllm.admit import Charging, Purse
from batchllm.admit.admission import Lease
from batchllm.admit.allowance import Booked
from batchllm.admit.group import LimitGroup
from batchllm.core.nouns import RowError
from batchllm.engine import attempt, budgets, lanes, twin_keys
from batchllm.engine.answers import Answers
from batchllm.engine.lane import Lane, Prepared
from batchllm.engine.outcomes import Outcomes
from batchllm.engine.path import Path
from batchllm.providers.openai_stream import CompletionStream
from batchllm.retry.decide import Again, Refused
from batchllm.route import router
from batchllm.store import Store, writer
from batchllm.validate import Parsed
from batchllm.verify import verify

ROWS = 60
"""Small jobs: many deaths for little time."""


@pytest.mark.parametrize("first", [0, 20, 40])
def test_seeds_are_clean(first):
    broken = {seed: verdict.broken for seed in range(first, first + 20) if (verdict := verify(seed, rows=ROWS)).broken}
    assert not broken


def test_a_seed_replays_exactly():
    first = next(verdict for seed in range(100) if (verdict := verify(seed, rows=ROWS)).deaths > 2)
    told: list[str] = []
    assert verify(first.seed, rows=ROWS, say=told.append) == first
    assert sum("died" in line for line in told) == first.deaths


# Planted bugs. Each is a slip that a tired person could make, as a patch of one function.


def _sends_before_the_journal_is_committed(patch: pytest.MonkeyPatch) -> None:
    real = writer.ThreadWriter.journal

    def journal(self: Any, start: Any) -> asyncio.Future[None]:
        real(self, start)
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    patch.setattr(writer.ThreadWriter, "journal", journal)


def _forgets_what_may_have_been_billed(patch: pytest.MonkeyPatch) -> None:
    real = Purse.settle
    patch.setattr(Purse, "settle", lambda self, pico, *, cost_pico, maybe: real(self, pico, cost_pico=cost_pico, maybe=False))


def _refunds_twice(patch: pytest.MonkeyPatch) -> None:
    real = Purse.settle

    def settle(self: Purse, pico: int, *, cost_pico: int | None, maybe: bool) -> None:
        real(self, pico, cost_pico=cost_pico, maybe=maybe)
        self.held_pico -= pico

    patch.setattr(Purse, "settle", settle)


def _gives_tokens_back_twice(patch: pytest.MonkeyPatch) -> None:
    real = LimitGroup.end

    def end(self: LimitGroup, back: dict[str, float] | None, now: float) -> None:
        # A part of the second refund is a request that wasn't charged.
        real(self, {"rpm": 1.0, **{name: 2 * amount for name, amount in (back or {}).items()}}, now)

    patch.setattr(LimitGroup, "end", end)


def _retries_outside_of_the_gate(patch: pytest.MonkeyPatch) -> None:
    real = attempt._admitted

    async def admitted(run: Any, lane: Any, work: Any, prepared: Any) -> Any:
        if work.kind == "retry":
            return run.admission._pass(lane.queue, prepared.amounts, prepared.reserve_pico or 0, run.clock.now())
        return await real(run, lane, work, prepared)

    patch.setattr(attempt, "_admitted", admitted)


def _tells_a_result_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    real = writer.ThreadWriter.answer

    def answer(self: Any, answer: Any, note: Any) -> None:
        if note is not None:
            self._on_commit([note])
        real(self, answer, None)

    patch.setattr(writer.ThreadWriter, "answer", answer)


def _commits_a_result_twice(patch: pytest.MonkeyPatch) -> None:
    real = Outcomes._commit

    def commit(self: Outcomes, *given: Any) -> None:
        real(self, *given)
        real(self, *given)

    patch.setattr(Outcomes, "_commit", commit)


def _loses_the_answers_of_a_group(patch: pytest.MonkeyPatch) -> None:
    real = writer.write_group

    def write_group(connection: Any, group: Any) -> Any:
        if group.journal and len(group.answers) > 1:
            group.answers = group.answers[:1]
        return real(connection, group)

    patch.setattr(writer, "write_group", write_group)


def _counts_a_refusal_as_a_try(patch: pytest.MonkeyPatch) -> None:
    real = attempt.decide

    def decide(*given: Any) -> Any:
        decision = real(*given)
        return Again(delay_seconds=decision.wait_seconds or 0.1) if isinstance(decision, Refused) else decision

    patch.setattr(attempt, "decide", decide)


def _reserves_a_guess(patch: pytest.MonkeyPatch) -> None:
    real = Lane.prepare

    def prepare(self: Lane, request: Any, utc: float) -> Prepared:
        prepared = real(self, request, utc)
        prices = self.prices(utc)
        assert prices is not None
        prepared.reserve_pico = prices.worst(prepared.estimate, 10)
        return prepared

    patch.setattr(Lane, "prepare", prepare)


def _takes_a_cut_attempt_for_not_billed(patch: pytest.MonkeyPatch) -> None:
    real = Store._recover

    def recover(self: Store) -> None:
        real(self)
        self.connection.execute("UPDATE attempt_log SET billed = 'no', cost_pico = 0 WHERE outcome = 'cancelled' AND billed = 'maybe'")

    patch.setattr(Store, "_recover", recover)


def _sends_on_after_a_hint(patch: pytest.MonkeyPatch) -> None:
    real = LimitGroup.pause
    patch.setattr(LimitGroup, "pause", lambda self, until: real(self, until - 0.2))


def _forgets_the_day_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budgets, "_booked", lambda _days, *, of_tokens: lambda _since: Booked(0, 0))


def _takes_a_stream_without_its_end_for_whole(patch: pytest.MonkeyPatch) -> None:
    real = CompletionStream.end

    def end(self: CompletionStream, came: Any) -> Any:
        if self._began and self._finish is None:
            self._finish = "stop"
        return real(self, came)

    patch.setattr(CompletionStream, "end", end)


def _believes_in_a_full_day(patch: pytest.MonkeyPatch) -> None:
    real = lanes.day_buckets
    patch.setattr(lanes, "day_buckets", lambda limits, how, clock, _past: real(limits, how, clock, None))


def _takes_an_invalid_answer(patch: pytest.MonkeyPatch) -> None:
    real = Answers.read

    def read(self: Answers, reply: Any, *rest: Any, **keys: Any) -> Any:
        verdict = real(self, reply, *rest, **keys)
        return Parsed(value={}) if isinstance(verdict, RowError) and reply.finish == "stop" else verdict

    patch.setattr(Answers, "read", read)


def _asks_again_without_a_word(patch: pytest.MonkeyPatch) -> None:
    real = Answers.repaired
    # What was wrong is left out.
    patch.setattr(Answers, "repaired", lambda self, *given: replace(given[0], messages=real(self, *given).messages[:2]))


def _never_escalates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "failed", lambda self, lane, code: None)


def _reserves_the_first_cap_for_a_longer_answer(patch: pytest.MonkeyPatch) -> None:
    real = Lane.prepare

    def prepare(self: Lane, request: Any, utc: float) -> Prepared:
        prepared = real(self, request, utc)
        first = real(self, replace(request, params=self._asked.merged), utc)
        prepared.reserve_pico = first.reserve_pico
        return prepared

    patch.setattr(Lane, "prepare", prepare)


def _splits_otherwise_in_each_run(patch: pytest.MonkeyPatch) -> None:
    real = router.pick
    patch.setattr(router, "pick", lambda weights, key, rule: real(weights, f"{key} {random.random()}", rule))


def _shares_with_whoever_asks_something_alike(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(twin_keys, "KEY_BYTES", 1)


def _bills_a_shared_answer_once_more(patch: pytest.MonkeyPatch) -> None:
    real = Outcomes.share

    def share(self: Outcomes, work: Any, shared: Any) -> None:
        work.attempts = work.attempts or 1
        work.cost_pico = shared.answer.cost_pico
        real(self, work, shared)

    patch.setattr(Outcomes, "share", share)


def _charges_no_input(patch: pytest.MonkeyPatch) -> None:
    real = Charging.amounts

    def amounts(self: Charging, input_tokens: float, **more: Any) -> dict[str, float]:
        return real(self, input_tokens, **more) | {"itpm": 0.0}

    patch.setattr(Charging, "amounts", amounts)
    patch.setattr(Charging, "used", lambda self, usage: {"itpm": 0.0})


def _paces_by_the_limits_of_the_first_run(patch: pytest.MonkeyPatch) -> None:
    real = lanes.minute_buckets
    first: dict[float, Any] = {}

    def buckets(limits: Any, now: float) -> Any:
        # One process, one seed: the first life of each begins at 0.
        if now == 0.0:
            first[0.0] = limits
        return real(first[0.0], now)

    patch.setattr(lanes, "minute_buckets", buckets)


def _sends_on_the_budget_of_yesterday(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "lapsed", False)


PLANTED: list[tuple[Callable[[pytest.MonkeyPatch], None], str]] = [
    (_sends_before_the_journal_is_committed, "before its journal entry was committed"),
    (_forgets_what_may_have_been_billed, "spent + reserved"),
    (_refunds_twice, "spent + reserved"),
    (_gives_tokens_back_twice, "ran into the declared limits"),
    (_retries_outside_of_the_gate, "in flight"),
    (_tells_a_result_before_its_commit, "announced as committed"),
    (_commits_a_result_twice, "announced twice"),
    (_loses_the_answers_of_a_group, "announced as committed"),
    (_counts_a_refusal_as_a_try, "used up an attempt"),
    (_reserves_a_guess, "reserved were"),
    (_takes_a_cut_attempt_for_not_billed, "possibly billed only"),
    (_sends_on_after_a_hint, "wait was over"),
    (_forgets_the_day_at_a_restart, "used and reserved in"),
    (_takes_a_stream_without_its_end_for_whole, "of an uninterrupted run"),
    (_believes_in_a_full_day, "ran into the declared limits"),
    (_takes_an_invalid_answer, "is ok with"),
    (_asks_again_without_a_word, "doesn't show the model"),
    (_never_escalates, "was not asked"),
    (_reserves_the_first_cap_for_a_longer_answer, "reserved were"),
    (_splits_otherwise_in_each_run, "of an uninterrupted run"),
    (_shares_with_whoever_asks_something_alike, "of an uninterrupted run"),
    (_bills_a_shared_answer_once_more, "says that it cost"),
    (_charges_no_input, "ran into the declared limits"),
    (_paces_by_the_limits_of_the_first_run, "above the declared requests"),
    (_sends_on_the_budget_of_yesterday, "booked on the day before"),
]


@pytest.mark.parametrize(("plant", "words"), PLANTED, ids=[plant.__name__.strip("_") for plant, _ in PLANTED])
def test_planted_bugs_are_found(monkeypatch, plant, words):
    plant(monkeypatch)
    assert any(words in text for seed in range(100, 300) for text in verify(seed, rows=ROWS).broken)
