"""What every journey of one run shares: the rooms, already set up, and the few counters of the run."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from batchllm.admit import Admission, Allowance, TooDear
from batchllm.core.clock import Clock
from batchllm.core.events import Listener, Note
from batchllm.core.nouns import Fault
from batchllm.core.secret import Scrubber
from batchllm.engine.answers import Answers
from batchllm.engine.budgets import amount_words, cap_words, mend_words
from batchllm.engine.fit import Fit
from batchllm.engine.outcomes import Outcomes
from batchllm.engine.stop import Stop, Stopper
from batchllm.engine.weather import Weather
from batchllm.engine.work import Work
from batchllm.providers.codec import Codec
from batchllm.retry.decide import RetryPolicy
from batchllm.store.writer import Writer

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane
    from batchllm.engine.tool_loop import ToolLoop
    from batchllm.spec import JobSpec

_RATE_SECONDS = 60.0


class Context:
    """One per run; passed down, never global."""

    def __init__(
        self,
        *,
        spec: JobSpec,
        number: int,
        job_id: str,
        clock: Clock,
        rng: random.Random,
        admission: Admission,
        writer: Writer,
        stopper: Stopper,
        scrubber: Scrubber,
        weather: Weather,
        outcomes: Outcomes,
        answers: Answers,
        tools: ToolLoop | None,
        ladder: Sequence[Lane],
        listener: Listener,
        first_attempt_id: int,
        inline: bool = False,
    ) -> None:
        self.inline = inline
        """Whether all work is done in the loop's thread (virtual time)."""
        fit = Fit(spec)
        self.fit = fit if fit.applies else None
        """What keeps prompts within windows, where the spec asks for it."""
        self.spec = spec
        self.number = number
        self.job_id = job_id
        self.clock = clock
        self.rng = rng
        self.admission = admission
        self.writer = writer
        self.stopper = stopper
        self.scrubber = scrubber
        self.weather = weather
        self.outcomes = outcomes
        self.answers = answers
        self.tools = tools
        """The functions that models may call; None: the job has none."""
        self.ladder = ladder
        """The models that rows escalate to."""
        self.listener = listener
        self.policy = RetryPolicy(
            max_attempts=spec.retry.max_attempts, initial_seconds=spec.retry.initial_seconds, max_seconds=spec.retry.max_seconds
        )
        self.timeout_seconds = spec.retry.timeout_seconds
        # JSON that was cut is no answer, nor is half a label.
        self.on_length: Literal["ok", "retry", "fail"] = spec.output.on_length
        if answers.form is not None and self.on_length == "ok":
            self.on_length = "fail"
        self._keep_bodies = spec.keep_bodies
        self._next_attempt = first_attempt_id
        self._marks: deque[tuple[float, int, int, int]] = deque()
        self.requests = 0
        self.tokens = 0
        self.set_aside = 0
        """Rows that a budget had no room for."""
        self.cheapest_aside: tuple[int, TooDear] | None = None
        """The cheapest of them: (position, what it would have taken of which cap)."""
        self.spawn: Callable[[Lane], None] = lambda _lane: None
        """Starts another worker of a model."""
        self.start: Callable[..., object] = lambda *_: None
        """Starts a task that ends with the run's workers: (function, its arguments)."""
        self._warned: set[str] = set()

    def next_attempt_id(self) -> int:
        """Ids rise over the store's whole life; this process is the only one that gives them."""
        self._next_attempt += 1
        return self._next_attempt - 1

    def unsend(self, attempt_id: int) -> None:
        """Takes back the journal entry of a request that never left."""
        gone = self.writer.call(lambda connection: connection.execute("DELETE FROM attempt_log WHERE attempt_id = ?", (attempt_id,)))
        # Nobody waits for it; if the store has failed, the run hears of it elsewhere.
        gone.add_done_callback(lambda future: future.cancelled() or future.exception())

    def warn(self, lane: Lane, codec: Codec) -> None:
        """Tells what a codec changed about requests so that the model takes them: each sentence once per run."""
        for sentence in codec.warnings[lane.warned :]:
            words = f"model {lane.name}: {sentence}"
            if words not in self._warned:
                self._warned.add(words)
                self.listener(Note(level="warning", text=words))
        lane.warned = len(codec.warnings)

    def sent(self) -> None:
        """Counts a request on its way."""
        self.requests += 1

    def used_tokens(self, tokens: int) -> None:
        """Counts tokens that came back as used."""
        self.tokens += tokens

    def mark(self) -> None:
        """Once a second: the rates are those of the last minute."""
        now = self.clock.now()
        self._marks.append((now, self.requests, self.tokens, self.outcomes.committed))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_SECONDS:
            self._marks.popleft()

    def rates(self) -> tuple[float, float, float]:
        """Requests, tokens and finished rows per minute, over the last minute at most."""
        if not self._marks:
            return (0.0, 0.0, 0.0)
        then, requests, tokens, rows = self._marks[0]
        minutes = max(self.clock.now() - then, 1e-3) / 60
        return ((self.requests - requests) / minutes, (self.tokens - tokens) / minutes, (self.outcomes.committed - rows) / minutes)

    @property
    def keeps_bodies(self) -> bool:
        """Whether any body may be kept."""
        return self._keep_bodies != "none"

    def keeps_body(self, *, failed: bool) -> bool:
        """Whether the store keeps the provider's bodies of such an attempt."""
        return self._keep_bodies == "all" or (failed and self._keep_bodies == "failed")

    def without_secrets(self, fault: Fault) -> Fault:
        """A fault whose words hold no secret."""
        message = self.scrubber.text(fault.message)
        return fault if message == fault.message else replace(fault, message=message)

    def scrubbed(self, data: bytes) -> str | bytes:
        """A body without secrets, as text where it is text."""
        data = self.scrubber.bytes(data)
        try:
            return data.decode()
        except UnicodeDecodeError:
            return data

    async def park(self, lane: Lane, seconds: float) -> None:
        """Waits for a row's next try without holding its place among the workers. Raises Closed when the run stops."""
        lane.parked += 1
        self.spawn(lane)
        try:
            await self.stopper.sleep(seconds)
        finally:
            lane.parked -= 1

    def overdrawn(self, cap: Allowance) -> None:
        """The truth went past a cap: a provider billed more than the bound, or the cap was lowered below what is spent. A window that is waited for just stays shut."""
        if cap.waits:
            return
        words = f"the provider billed more than the reserved bound of the {cap_words(cap)}; the truth is booked and nothing new is sent"
        if cap.purse.lowered:
            spent = amount_words(cap, cap.purse.spent_pico)
            most = amount_words(cap, cap.purse.spent_pico + cap.purse.pinned_pico)
            words = f"the budget was lowered to {amount_words(cap, cap.purse.cap_pico or 0)}, but {spent} is spent, {most} at most; {mend_words(cap, now_utc=self.clock.utc())}"
        elif self.spec.budget.reserve == "learned":
            words = f"the {cap_words(cap)} was overshot: answers were longer than `budget.reserve: learned` had seen; the truth is booked and nothing new is sent"
        self.stopper.set(Stop(exit_code=3, stopped_by="budget", message=words))

    def too_dear(self, work: Work, dear: TooDear) -> None:
        """What is left of a budget does not do for this row, but for others: it stays pending, and the run's end names it."""
        self.set_aside += 1
        if self.cheapest_aside is None or dear.amount < self.cheapest_aside[1].amount:
            self.cheapest_aside = (work.position, dear)

    def falls_back(self, lane: Lane, work: Work) -> bool:
        """Whether a row of an endpoint that is down moves on (`on_outage: fallback`)."""
        if self.spec.retry.on_outage != "fallback" or work.patient:
            return False
        return any(not other.is_out for other in work.ahead if other is not lane)

    def leaves(self, lane: Lane, work: Work, amounts: dict[str, float]) -> bool:
        """Whether a row that was sent away from a key's line goes elsewhere: to another key of the model, or along its chain."""
        return lane.has_better_key(amounts, self.clock.now()) or self.falls_back(lane, work)

    def no_live_model(self, work: Work) -> None:
        """A row whose models are all out: it stays pending, and the run says why."""
        keys = (key for lane in dict.fromkeys((*work.chain, *self.ladder)) for key in lane.keys)
        reasons = "; ".join(f"{key.label}: {key.out}" for key in keys if key.out is not None)
        self.stopper.set(
            Stop(exit_code=4, stopped_by="provider", message=f"no model is left for row {work.position}: {reasons or 'its models are down'}")
        )
