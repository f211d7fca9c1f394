"""A lane: everything that is fixed for one model in one run - who it is, what it costs, how it is spoken to, whether it is up.

Its workers take rows from its queue; a row that only waits for its next try parks, and another worker may start in its place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping

from batchllm.admit import LimitGroup, Purse
from batchllm.admit.admission import Queue
from batchllm.admit.finder import Finder
from batchllm.core.nouns import Draft, Request
from batchllm.core.wire import Transport
from batchllm.cost import Prices, same_or_snapshot
from batchllm.engine.work import Work
from batchllm.providers.openai import OpenAIChat
from batchllm.rows.request import merge
from batchllm.spec import LimitsSpec, ModelSpec
from batchllm.store import Deployment
from batchllm.tokens import Counter, Learnt, output_cap

FAULTS_IN_A_ROW = 5
"""Connection faults without an answer in between after which an endpoint counts as down."""
OWN_BURST = 0.5
"""Of the provider's burst, the part that we use: sends that bunch up on the way must still fit the rest."""
_FIRST_OUTPUT_GUESS = 256
"""Tokens that an answer is expected to have, until the first ones came, where no cap says it."""


def _declared(limits: LimitsSpec) -> frozenset[str]:
    return frozenset(name for name in ("rpm", "tpm") if getattr(limits, name) is not None)


_MOST_OUTPUT = 200_000
"""Tokens of one answer that the mean believes: no model gives more, but a provider may say so."""


class Prepared:
    """A request, ready for admission at one lane."""

    __slots__ = ("amounts", "estimate", "request", "reserve_pico", "tier")

    def __init__(self, request: Request, estimate: int, amounts: dict[str, float], reserve_pico: int | None, tier: str | None) -> None:
        self.request = request
        self.estimate = estimate
        """Input tokens, as far as the counter knows."""
        self.amounts = amounts
        """What the limits charge for it."""
        self.reserve_pico = reserve_pico
        """The most that it can cost; None: no price or no bound is known."""
        self.tier = tier
        """The service tier that it asks for."""


class _Asked:
    """What follows from a set of parameters alone: once per lane, unless a row brings its own."""

    __slots__ = ("all", "cap", "merged", "output", "tier")

    def __init__(self, merged: Mapping[str, object], body: Mapping[str, object], documented_output: int | None) -> None:
        self.merged = merged
        self.all = {**merged, **body} if body else merged
        asked = output_cap(self.all)
        self.output = asked
        """Output tokens that rate limits are charged for; None: what answers have on average."""
        self.cap = asked if asked is not None else documented_output
        """Output tokens that money is reserved for."""
        tier = self.all.get("service_tier")
        self.tier = tier if isinstance(tier, str) else None


class Outage:
    """Whether an endpoint is down, and since when."""

    __slots__ = ("_rows", "alive_at", "down", "first_at", "probes", "streak", "words")

    def __init__(self) -> None:
        self.alive_at = -math.inf
        """When the latest request that got a reply was sent: what was sent before it and got none can't blame the endpoint."""
        self._rows: set[int] = set()
        self.streak = 0
        self.first_at = 0.0
        self.down = False
        self.probes = 0
        self.words = ""

    def fault(self, now: float, words: str, *, row_key: int | None = None) -> None:
        """A fault that an endpoint in trouble gives. `row_key`: a row can give it too, so each row counts once."""
        if self.streak == 0:
            self.first_at = now
        self.words = words
        if row_key is not None:
            if row_key in self._rows:
                return
            self._rows.add(row_key)
        self.streak += 1

    def over(self) -> None:
        """An answer came, whatever it said."""
        self.streak = 0
        self.down = False
        self.probes = 0
        self._rows.clear()


class Lane:
    """One model's part of the run."""

    def __init__(
        self,
        *,
        name: str,
        spec: ModelSpec,
        deployment: Deployment,
        deployment_id: int,
        codec: OpenAIChat,
        transport: Transport,
        counter: Counter,
        prices: Callable[[str, float, str | None], Prices | None],
        documented_output: int | None,
        own: LimitGroup,
        shared: tuple[LimitGroup, ...],
        queue: Queue,
        purse: Purse,
        answered: bool,
        spec_request: dict[str, object],
        width: int,
        learnt: Learnt,
    ) -> None:
        self.name = name
        self.spec = spec
        self.deployment = deployment
        self.deployment_id = deployment_id
        self.codec = codec
        self.transport = transport
        self.counter = counter
        self.own = own
        self.groups = (own, *shared)
        """The groups that a refusal pauses: its own, and those it shares with other models (not the run's slots)."""
        self.queue = queue
        self.purse = purse
        self.simulated = spec.provider == "simulated"
        self.answered = answered
        """Whether it ever answered in this store; one that never did and is refused for good stops the run."""
        self.out: str | None = None
        """Why it is out for this run."""
        self.outage = Outage()
        self.finder = Finder(_declared(spec.limits))
        self.adaptive = not spec.limits.declared and not spec.limits.unlimited
        """Whether its limits are to be found out."""
        self.burst_seconds = spec.limits.burst_seconds * OWN_BURST
        self.reads_hints = not spec.limits.unlimited
        self.backlog: asyncio.Queue[Work | None] = asyncio.Queue()
        self.taken = asyncio.Event()
        """Set when a row left a full queue, and when the run stops."""
        self.backlog_limit = 2 * width + 64
        self.width = width
        self.tags = spec.provider in {"openai", "simulated"}
        self._spec_request = spec_request
        self._prices = prices
        self._documented_output = documented_output
        self._learnt = learnt
        self._output_mean = float(_FIRST_OUTPUT_GUESS)
        empty = Draft(endpoint="chat", messages=())
        merged = merge(empty, spec_request=spec_request, model_request=spec.request, body=spec.body).params
        self._asked = _Asked(merged, spec.body, documented_output)
        # Workers.
        self.workers = 0
        self.idle = 0
        self.parked = 0
        self.closed = False

    def reopen(self) -> None:
        """For another round of rows, after the workers of the last one have ended."""
        self.closed = False
        while not self.backlog.empty():
            self.backlog.get_nowait()

    def resize(self, width: int) -> None:
        """Another number of workers from now on; those above it end with their row."""
        self.width = width
        self.backlog_limit = 2 * width + 64
        self.taken.set()

    def limit(self, limits: LimitsSpec, *, rates: bool) -> None:
        """Takes over changed limits (its buckets and slots are the caller's). `rates`: what headers and refusals taught counts anew."""
        self.spec = self.spec.model_copy(update={"limits": limits})
        self.adaptive = not limits.declared and not limits.unlimited
        self.reads_hints = not limits.unlimited
        if rates:
            self.finder = Finder(_declared(limits))

    def request(self, draft: Draft) -> Request:
        """The logical request of a row to this model."""
        if not draft.params:
            return Request(endpoint=draft.endpoint, messages=draft.messages, params=self._asked.merged, body=self.spec.body)
        return merge(draft, spec_request=self._spec_request, model_request=self.spec.request, body=self.spec.body)

    def prices(self, utc: float, tier: str | None = None) -> Prices | None:
        """What the asked model costs now."""
        return self._prices(self.spec.model, utc, tier)

    def prices_of_answer(self, answered: str | None, utc: float, tier: str | None) -> Prices | None:
        """What the answer is priced by: the answered model if it is a dated snapshot of the asked one and in the book, else the asked one.

        `tier`: the service tier that the answer names, else the one that was asked for.
        """
        if answered is not None and answered != self.spec.model and same_or_snapshot(self.spec.model, answered):
            return self._prices(answered, utc, tier) or self.prices(utc, tier)
        return self.prices(utc, tier)

    def prepare(self, request: Request, utc: float) -> Prepared:
        """Counts and bounds a request. Microseconds: once per row."""
        asked = self._asked
        if request.params is not asked.merged:
            asked = _Asked(request.params, request.body, self._documented_output)
        estimate, bound = self.counter.both(request.messages, asked.all)
        prices = self._prices(self.spec.model, utc, asked.tier)
        reserve = None
        if prices is not None and bound is not None and asked.cap is not None:
            reserve = prices.worst(bound, asked.cap)
        output = asked.output if asked.output is not None else self._output_mean
        return Prepared(request, estimate, {"rpm": 1.0, "tpm": self._learnt.corrected(self.name, estimate) + output}, reserve, asked.tier)

    def learn(self, estimate: int, input_tokens: int, output_tokens: int) -> None:
        """What an answer used; the next reservations at the rate limits follow it."""
        self._learnt.observe(self.name, estimate, input_tokens)
        self._output_mean += (min(max(output_tokens, 1), _MOST_OUTPUT) - self._output_mean) * 0.05

    def wants_probe(self, now: float) -> bool:
        """Whether a row that could go elsewhere should ask a model that is down, to see if it is back."""
        return not self.own.in_flight and not self.queue.waiters and now >= self.own.paused_until
