"""A lane: everything that is fixed for one model in one run - who it is, what it costs, how it is spoken to, whether it is up.

Its workers take rows from its queue; a row that only waits for its next try parks, and another worker may start in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from batchllm.admit import Allowance, Charging, LimitGroup, Purse
from batchllm.admit.admission import Queue
from batchllm.admit.charging import DIMENSIONS, MINUTE
from batchllm.admit.finder import Finder
from batchllm.core.nouns import Draft, Endpoint, Request, Usage, Wanted
from batchllm.core.wire import Transport
from batchllm.cost import Prices, same_or_snapshot
from batchllm.engine.outage import Outage
from batchllm.engine.prompt_cache import PromptCache, PromptKey
from batchllm.engine.work import Work
from batchllm.providers.codec import Codec
from batchllm.retry.improve import LONGER
from batchllm.rows.request import merge
from batchllm.spec import LimitsSpec, ModelSpec
from batchllm.store import Deployment
from batchllm.store.learnt import LearntModel
from batchllm.tokens import Counter, Learnt, Lengths, of_embedding, output_cap

if TYPE_CHECKING:
    from batchllm.engine.packing import Packer

_SURELY_LARGER = 1.5
"""Times a limit; below, the estimate of a request's tokens may be wrong."""
OWN_BURST = 0.5
"""Of the provider's burst, the part that we use: sends that bunch up on the way must still fit the rest."""
_FIRST_OUTPUT_GUESS = 256
"""Tokens that an answer is expected to have, until the first ones came, where no cap says it."""


_FEW_ANSWERS = 16
_RATE_PART = 0.9
"""Of the answers: as long as these get, output is reserved at limits that charge no cap."""
_MONEY_PART = 0.99
_MONEY_ENOUGH = 100
"""Answers from which money may be reserved by what was learnt (`budget.reserve: learned`)."""
_CACHED_MEMORY = 0.98
_CACHED_TRUST = 0.9
"""Of the share of cached input that was seen: what is expected of the next request."""


_LATENCY_SHARE = 0.1
"""Of the newest answer in the mean latency."""


def _declared(limits: LimitsSpec) -> frozenset[str]:
    return frozenset(name for name in DIMENSIONS if getattr(limits, name) is not None)


def paced(limits: LimitsSpec) -> bool:
    """Whether a rate per minute is declared; without one it is found out (unless there is none). A limit per day says nothing about rates."""
    return any(getattr(limits, name) is not None for name in MINUTE)


class Prepared:
    """A request, ready for admission at one lane."""

    __slots__ = ("amounts", "estimate", "held_pico", "held_tokens", "output_cap", "request", "reserve_pico", "reserve_tokens", "tier")

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
        self.reserve_tokens: int | None = None
        """The most tokens that it can use, input and output; None: no bound is known."""
        self.held_pico: int | None = None
        """What is held back for it where that is less than its most (`budget.reserve: learned`)."""
        self.held_tokens: int | None = None
        self.output_cap: int | None = None
        """The output cap that it asks for."""

    @property
    def held(self) -> tuple[int, int]:
        """(pico-dollars, tokens) that are held back for it."""
        pico = self.held_pico if self.held_pico is not None else self.reserve_pico or 0
        return pico, self.held_tokens if self.held_tokens is not None else self.reserve_tokens or 0


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
        tier = "fast" if self.all.get("speed") == "fast" else self.all.get("service_tier")  # Anthropic's word for a dearer, faster way
        self.tier = tier if isinstance(tier, str) else None


class Lane:
    """One model's part of the run."""

    def __init__(
        self,
        *,
        name: str,
        spec: ModelSpec,
        deployment: Deployment,
        deployment_id: int,
        codec_of: Callable[[Endpoint], Codec],
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
        streams: bool,
        wanted: Wanted | None,
        window: int | None,
        charging: Charging,
        known: LearntModel | None,
        reserves_learnt: bool,
        key_env: str | None = None,
    ) -> None:
        self.name = name
        self.key_env = key_env
        """The variable that holds its key, where the model has several keys."""
        self.label = name if key_env is None else f"{name} ({key_env})"
        self.keys: tuple[Lane, ...] = (self,)
        """The same model by each of its keys. Rows are handed to the first, which stands for them all, and each request goes to the one that is free (`by_key`)."""
        self.spec = spec
        self.deployment = deployment
        self.deployment_id = deployment_id
        self._codec_of = codec_of
        self._codecs: dict[Endpoint, Codec] = {}
        self.transport = transport
        self.counter = counter
        self.own = own
        self.groups = (own, *shared)
        """Its own, and those it shares with other models (not the run's slots)."""
        self.queue = queue
        self.purse = purse
        self.charging = charging
        self.simulated = spec.provider == "simulated"
        self.answered = answered
        """Whether it ever answered in this store; one that never did and is refused for good stops the run."""
        self.out: str | None = None
        """Why it is out for this run, by this key."""
        self._turns = 0
        self.outage = Outage()
        self.finder = Finder(_declared(spec.limits))
        self.adaptive = not paced(spec.limits) and not spec.limits.unlimited
        """Whether its limits are to be found out."""
        self.burst_seconds = spec.limits.burst_seconds * OWN_BURST
        self.reads_hints = not spec.limits.unlimited
        self.backlog: asyncio.Queue[Work | None] = asyncio.Queue()
        self.taken = asyncio.Event()
        """Set when a row left a full queue, and when the run stops."""
        self.backlog_limit = 2 * width + 64
        self.width = width
        self.streams = streams
        self.warned = 0
        """How many of the codec's warnings were shown."""
        self.latency_seconds: float | None = None
        """Mean over the last accepted answers of this run; None before the first."""
        self.packer: Packer | None = None
        """What puts inputs of embeddings together."""
        self.prompt_cache: PromptCache | PromptKey | None = None
        """What marks the common beginning of its prompts, where that pays."""
        self.window = window
        """Tokens of the longest prompt, as documented; None: not known."""
        self._wanted = wanted
        self._spec_request = spec_request
        self._prices = prices
        self._documented_output = documented_output
        self._learnt = learnt
        self.lengths = Lengths(known.outputs if known is not None else None)
        """How long its answers get."""
        self.cached_share = known.cached_share or 0.0 if known is not None else 0.0
        """Of its input tokens, the part that the provider reads from its cache."""
        if known is not None and known.estimated is not None and known.counted is not None:
            learnt.remember(name, known.estimated, known.counted)
        self._reserves_learnt = reserves_learnt
        empty = Draft(endpoint="chat", messages=())
        merged = merge(empty, spec_request=spec_request, model_request=spec.request, body=spec.body, wanted=wanted).params
        self._asked = _Asked(merged, spec.body, documented_output)
        # Workers.
        self.workers = 0
        self.idle = 0
        self.parked = 0
        self.closed = False

    def codec(self, endpoint: Endpoint) -> Codec:
        """Who speaks for this kind of request; rows in the form of OpenAI's Batch lines bring their own endpoint. Raises `Unserved` (a ValueError)."""
        codec = self._codecs.get(endpoint)
        if codec is None:
            codec = self._codecs[endpoint] = self._codec_of(endpoint)
        return codec

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

    @property
    def params(self) -> dict[str, object]:
        """The parameters of its requests, but for a row's own."""
        return {**self._spec_request, **self.spec.request}

    def limit(self, limits: LimitsSpec, *, rates: bool) -> None:
        """Takes over changed limits (its buckets and slots are the caller's). `rates`: what headers and refusals taught counts anew."""
        self.spec = self.spec.model_copy(update={"limits": limits})
        self.adaptive = not paced(limits) and not limits.unlimited
        self.reads_hints = not limits.unlimited
        if rates:
            self.finder = Finder(_declared(limits))

    def request(self, draft: Draft) -> Request:
        """The logical request of a row to this model."""
        wanted = self._wanted
        if not draft.params and (wanted is None or draft.endpoint != "embeddings"):
            return Request(endpoint=draft.endpoint, messages=draft.messages, params=self._asked.merged, body=self.spec.body, wanted=wanted)
        return merge(draft, spec_request=self._spec_request, model_request=self.spec.request, body=self.spec.body, wanted=wanted)

    def longer(self, request: Request) -> Request | None:
        """The request with twice the output cap, up to the model's documented maximum; None when there is no more to be had."""
        cap = output_cap(request.params)
        if cap is None or (self._documented_output is not None and cap >= self._documented_output):
            return None
        most = self._documented_output
        if most is None:
            first = output_cap(self._asked.merged)
            most = (first if first is not None else cap) << LONGER
        more = min(2 * cap, most)
        if more <= cap:
            return None
        caps = {name: more for name in ("max_tokens", "max_completion_tokens") if request.params.get(name) is not None}
        return replace(request, params={**request.params, **caps})

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
        embeds = request.endpoint == "embeddings"
        estimate, bound = of_embedding(self.counter, request.messages) if embeds else self.counter.both(request.messages, asked.all)
        prices = self._prices(self.spec.model, utc, asked.tier)
        prepared = Prepared(request, estimate, {}, None, asked.tier)
        # A vector has no tokens, whatever cap the job's other requests have.
        cap = 0 if embeds else asked.cap
        prepared.output_cap = 0 if embeds else asked.output
        prepared.amounts = self.amounts(prepared)
        if bound is not None and cap is not None:
            prepared.reserve_tokens = bound + cap
            if prices is not None:
                prepared.reserve_pico = prices.worst(bound, cap)
            if self._reserves_learnt:
                self._hold_less(prepared, bound, cap, prices)
        return prepared

    def together(self, parts: Sequence[Prepared]) -> Prepared:
        """Several inputs of embeddings as the one request that the limits are charged for."""
        whole = Prepared(parts[0].request, sum(part.estimate for part in parts), {}, None, parts[0].tier)
        whole.output_cap = 0
        whole.amounts = self.amounts(whole)
        return whole

    def amounts(self, prepared: Prepared) -> dict[str, float]:
        """What the limits charge for a request, by what is known now."""
        return self.charging.amounts(
            self._learnt.corrected(self.name, prepared.estimate),
            cap=prepared.output_cap,
            expected=self._expected_output(),
            cached_share=self.cached_share * _CACHED_TRUST,
        )

    def _expected_output(self) -> float:
        """Output tokens to reserve where no cap is charged: what most answers stay within. A bucket that holds only a few answers can't take back what each of
        them left over (it is full too often), so there it is what answers have on average.
        """
        likely = self.lengths.quantile(_RATE_PART)
        if likely is None:
            return _FIRST_OUTPUT_GUESS
        for bucket in self.own.buckets:
            if bucket.dimension == "otpm" and bucket.capacity < _FEW_ANSWERS * likely:
                return self.lengths.mean or likely
        return likely

    def _hold_less(self, prepared: Prepared, bound: int, cap: int, prices: Prices | None) -> None:
        """Holds back what nearly all answers stay within, as soon as enough of them came."""
        likely = self.lengths.quantile(_MONEY_PART) if self.lengths.seen >= _MONEY_ENOUGH else None
        if likely is not None and likely < cap:
            prepared.held_tokens = bound + likely
            prepared.held_pico = prices.worst(bound, likely) if prices is not None else None

    def unbounded(self, prepared: Prepared) -> bool:
        """Whether a cap holds, and nobody knows the most that the request can take of it."""
        for cap in self.queue.caps:
            if cap.purse.cap_pico is not None and (prepared.reserve_tokens if cap.of_tokens else prepared.reserve_pico) is None:
                return True
        return False

    @property
    def caps(self) -> tuple[Allowance, ...]:
        """All budgets that its requests are paid from."""
        return self.queue.caps

    def most_slack_pico(self, utc: float, *, longer: bool) -> int:
        """By how much one request can cost more than is held for it (`budget.reserve: learned`), as the spec's own parameters say. `longer`: its cap may be raised."""
        prices, cap = self.prices(utc, self._asked.tier), self._asked.cap
        if longer and cap is not None:
            cap = max(cap, self._documented_output or cap << LONGER)
        return prices.worst(0, cap) if prices is not None and cap is not None else 0

    def larger_than(self, prepared: Prepared) -> str | None:
        """The limit per minute that this request is larger than by far, however full the bucket is; None when it may pass some time."""
        for dimension, amount in prepared.amounts.items():
            limit = self.finder.told.get(dimension)
            if limit is None:
                limit = getattr(self.spec.limits, dimension, None)
            if limit is not None and dimension in MINUTE and amount > limit * _SURELY_LARGER:
                return f"{dimension} {limit:,.0f}"
        return None

    def learn(self, estimate: int, usage: Usage) -> None:
        """What an answer used; the next reservations at the rate limits follow it."""
        self._learnt.observe(self.name, estimate, usage.input_tokens)
        self.lengths.observe(usage.output_tokens)
        if usage.input_tokens > 0:
            share = min(1.0, usage.cached_input_tokens / usage.input_tokens)
            self.cached_share = self.cached_share * _CACHED_MEMORY + share * (1 - _CACHED_MEMORY)

    def took(self, seconds: float) -> None:
        """How long an accepted answer took."""
        mean = self.latency_seconds
        self.latency_seconds = seconds if mean is None else mean + (seconds - mean) * _LATENCY_SHARE

    def assume(
        self, *, counter: Counter, charging: Charging, prices: Callable[[str, float, str | None], Prices | None], documented_output: int | None
    ) -> None:
        """Counts, charges and prices as another model does: a forecast plays a real model with a simulated one in its place."""
        self.counter = counter
        self.charging = charging
        self._prices = prices
        self._documented_output = documented_output
        self._asked = _Asked(self._asked.merged, self.spec.body, documented_output)

    def learnt(self) -> LearntModel:
        """What was learnt of it, for the store."""
        sums = self._learnt.sums(self.name)
        estimated, counted = sums if sums is not None else (None, None)
        return LearntModel(estimated, counted, self.cached_share if self.lengths.seen else None, self.lengths.as_counts())

    def wants_probe(self, now: float) -> bool:
        """Whether a row that could go elsewhere should ask a model that is down, to see if it is back."""
        return any(key._free_for_probe(now) for key in self.keys if key.out is None)  # noqa: SLF001 - of the same class

    def _free_for_probe(self, now: float) -> bool:
        return not self.own.in_flight and not self.queue.waiters and now >= self.own.paused_until

    # Several keys.

    @property
    def blamed(self) -> Sequence[LimitGroup]:
        """The groups that a refusal pauses. Of several keys each has an account's limits for itself: what one is refused says nothing about what the others share."""
        return self.groups if len(self.keys) == 1 else (self.own,)

    @property
    def is_out(self) -> bool:
        """Whether none of its keys is left for this run."""
        return all(key.out is not None for key in self.keys)

    @property
    def is_down(self) -> bool:
        """Whether none of its keys reaches it."""
        return all(key.outage.down or key.out is not None for key in self.keys)

    def by_key(self, amounts: dict[str, float], now: float) -> Lane:
        """The model by the key that will let a request pass soonest: the shortest line, where nothing is wrong; in turn where none has to wait."""
        if len(self.keys) == 1:
            return self
        lane = min(self.keys, key=lambda key: key._line(amounts, now))  # noqa: SLF001 - of the same class
        lane._turns += 1  # noqa: SLF001 - of the same class
        return lane

    def _line(self, amounts: dict[str, float], now: float) -> tuple[bool, bool, float, int, float, int]:
        short = self.own.short_of(amounts, now)
        paused = max(0.0, self.own.paused_until - now)
        # One that is down gets a row now and then, or nobody would ever hear that it is back.
        down = self.outage.down and not self._free_for_probe(now)
        return (self.out is not None, down, paused, len(self.queue.waiters), short[1] if short is not None else 0.0, self._turns)

    def has_better_key(self, amounts: dict[str, float], now: float) -> bool:
        """Whether a request that waits for this key should go to another one."""
        mine = self._line(amounts, now)[:3]
        return any(key._line(amounts, now)[:3] < mine for key in self.keys if key is not self)  # noqa: SLF001 - of the same class
