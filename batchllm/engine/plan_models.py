"""What a forecast knows of one model without a key: how it counts, what it costs, how long its answers get and how long they take.

The trap is the guess. Length and speed of answers are learnt from the job's store where there are any, drawn from the simulator where a model is simulated, and
assumed otherwise; each figure says which.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from batchllm import tokens
from batchllm.admit import Charging
from batchllm.core.nouns import Draft, Request, Usage, Wanted
from batchllm.cost import Prices
from batchllm.engine.access import Access, deployment_of
from batchllm.engine.facts import documented, documented_output, price_finder
from batchllm.engine.fit import Fit
from batchllm.engine.pace import charging_of
from batchllm.engine.prompt_cache import SURELY_KEPT_TOKENS, beginning_kept
from batchllm.providers.codecs import codec_for
from batchllm.rows.media import attachments, loaded
from batchllm.rows.request import merge
from batchllm.simulator import Settings, Simulator
from batchllm.spec import JobSpec, ModelSpec
from batchllm.store.read import StoreReader
from batchllm.store.spend import spend_by
from batchllm.store.windows import DayUse, used_by_day

Basis = Literal["learnt", "simulated", "assumed"]
ASSUMED_OUTPUT = 256
"""Tokens of an answer when nothing is known but the cap."""
ASSUMED_SECONDS = 1.0
ASSUMED_TOKENS_PER_SECOND = 50.0
ENOUGH_ANSWERS = 5
"""Earlier answers of a model from which a mean is taken."""
SIMULATED_MS = 50.0
_SPREAD = 0.3
"""Of the logarithm of latencies."""
_NO_HOST = "http://simulator.invalid/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What a model's answers in this store had on average."""

    answers: int
    output_tokens: float
    seconds: float | None
    cached_share: float
    """Of its input, read from the provider's cache."""
    written_share: float
    """Of its input, written to it."""
    input_ratio: float
    """By how much its real input differs from the estimates; 1.0 until it is known."""


class Asked(NamedTuple):
    """One request as a forecast sees it."""

    estimate: int
    """Input tokens that the engine would reserve at rate limits."""
    bound: int | None
    cap: int | None
    """Output cap that the request names."""
    most_output: int | None
    input_tokens: int
    """Expected to be billed, as all that follows."""
    cached_tokens: int
    output_tokens: int
    cost_pico: int | None
    worst_pico: int | None
    seconds: float | None
    """How long the answer takes; None where only `PlanModel.seconds` can say."""


class _Kept:
    """What a run has Anthropic keep of the prompts (`prompt_cache`), where it is sure that the model keeps so much.

    OpenAI keeps beginnings as it likes: that is no more than a saving which may come.
    """

    def __init__(self, spec: JobSpec, model: ModelSpec, counter: tokens.Counter) -> None:
        self.hour = spec.prompt_cache == "1h"
        self._beginning = beginning_kept(spec, model, counter) if model.provider == "anthropic" else None
        self._tokens: dict[str, int] = {}
        self._first = True
        if self._beginning is not None:
            least = next(least for part, least in SURELY_KEPT_TOKENS.items() if part in model.model)
            lengths = {lead: counter.estimate(self._beginning.messages(lead), {}) for lead in {"", self._beginning.lead}}
            self._tokens = {lead: length if length >= least else 0 for lead, length in lengths.items()}

    def tokens_of(self, request: Request) -> int | None:
        """Tokens that this request and others are sure to write once and then read; None: it is not marked at all."""
        lead = self._beginning.lead_of(request) if self._beginning is not None else None
        return None if lead is None else self._tokens[lead]

    def is_first(self) -> bool:
        """Whether nobody wrote them yet; once."""
        first, self._first = self._first, False
        return first


class PlanModel:
    """One model of the job, for counting and for playing."""

    def __init__(self, name: str, spec: JobSpec, access: Access, *, utc: float, wanted: Wanted | None, earlier: Earlier | None) -> None:
        model = spec.models[name]
        self.name = name
        self.spec = model
        self.base_url = access.base_url
        self.counter = tokens.counter(model.provider, model.model, base_url=access.base_url or None)
        self.documented_output = documented_output(model, access.base_url)
        self.window = documented(model, access.base_url).context_window
        fit = Fit(spec)
        self._fit = fit if fit.applies else None
        self.charging: Charging = charging_of(model, access.base_url)
        self.earlier = earlier if earlier is not None and earlier.answers >= ENOUGH_ANSWERS else None
        self._kept = _Kept(spec, model, self.counter)
        self.simulated = model.provider == "simulated"
        self._find = price_finder(model, access.base_url)
        self._utc = utc
        self._wanted = wanted
        self._request: Mapping[str, Any] = spec.request
        self._merged = self._merge(Draft(endpoint=spec.endpoint, messages=()))
        self._rest = 0.0
        self._codecs: dict[str, Any] = {}
        self._simulator: Simulator | None = None
        if self.simulated:
            # Without limits and faults: what it says, and when.
            given = model.simulator
            latency = given.latency_ms if given.latency_ms is not None else SIMULATED_MS
            self._simulator = Simulator(Settings(seed=given.seed, latency_ms=latency, audit_records=1), started=0.0)
        self.prices = self._find(model.model, utc, self._tier(self._merged))

    def _merge(self, draft: Draft) -> Request:
        return merge(draft, spec_request=self._request, model_request=self.spec.request, body=self.spec.body, wanted=self._wanted)

    def _tier(self, request: Request) -> str | None:
        tier = request.body.get("service_tier", request.params.get("service_tier"))
        return tier if isinstance(tier, str) else None

    @property
    def basis(self) -> Basis:
        """Where the expected length and speed of its answers come from."""
        return "simulated" if self.simulated else "learnt" if self.earlier is not None else "assumed"

    def prices_of(self, request: Request) -> Prices | None:
        """What the request costs now, by the tier that it asks for."""
        return self._find(self.spec.model, self._utc, self._tier(request)) if request.params is not self._merged.params else self.prices

    def request(self, draft: Draft) -> Request:
        """The logical request of a row to this model."""
        if not draft.params and draft.endpoint == self._merged.endpoint:
            merged = self._merged
            return Request(endpoint=draft.endpoint, messages=draft.messages, params=merged.params, body=merged.body, wanted=merged.wanted)
        return self._merge(draft)

    def takes(self, draft: Draft) -> bool:
        """Whether the row's prompt fits, trimmed or not, where the spec says that it must (`context`)."""
        return self._fit is None or isinstance(self._fit.fitted(self, self.request(draft)), tuple)

    def asked(self, request: Request) -> Asked:
        """Counts, bounds and prices one request, trimmed as a run would trim it. As long as its prompt is: up to milliseconds."""
        fitted = self._fit.fitted(self, request) if self._fit is not None else None
        if isinstance(fitted, tuple):
            request = fitted[0]
        params = {**request.params, **request.body} if request.body else request.params
        embeds = request.endpoint == "embeddings"
        estimate, bound = tokens.of_embedding(self.counter, request.messages) if embeds else self.counter.both(request.messages, params)
        cap = tokens.output_cap(params)
        most = 0 if embeds else cap if cap is not None else self.documented_output
        usage, seconds = self._simulate(request) if self._simulator is not None else (self._expect(request, estimate, most), None)
        prices = self.prices_of(request)
        return Asked(
            estimate=estimate,
            bound=bound,
            cap=cap,
            most_output=most,
            input_tokens=usage.input_tokens,
            cached_tokens=usage.cached_input_tokens,
            output_tokens=usage.output_tokens,
            cost_pico=prices.price(usage, hour_cache=self._kept.hour) if prices is not None else None,
            worst_pico=prices.worst(bound, most) if prices is not None and bound is not None and most is not None else None,
            seconds=seconds,
        )

    def _expect(self, request: Request, estimate: int, most: int | None) -> Usage:
        earlier = self.earlier
        output = float(ASSUMED_OUTPUT) if earlier is None else earlier.output_tokens
        real = estimate if earlier is None else round(estimate * earlier.input_ratio)
        kept = self._kept.tokens_of(request)
        cached = written = 0
        if earlier is not None:
            # What was written for all is there now, to be read.
            cached = int(real * (earlier.cached_share + (earlier.written_share if kept is not None else 0.0)))
        elif kept and self._kept.is_first():
            written = min(kept, real)
        elif kept:
            cached = min(kept, real)
        self._rest += output if most is None else min(output, most)
        # What rounding leaves over goes to the next row: else a mean of 37.4 would be 37 for all of them.
        whole = int(self._rest)
        self._rest -= whole
        return Usage(input_tokens=real, output_tokens=whole, cached_input_tokens=cached, cache_write_tokens=written)

    def _simulate(self, request: Request) -> tuple[Usage, float | None]:
        """What the simulated provider will really say to it."""
        assert self._simulator is not None
        codec = self._codecs.get(request.endpoint)
        if codec is None:
            codec = self._codecs[request.endpoint] = codec_for(
                provider="simulated", endpoint=request.endpoint, base_url=_NO_HOST, model=self.spec.model, api_key=None, headers={}
            )
        nothing = Usage(input_tokens=0, output_tokens=0)
        try:
            if attachments(request.messages):
                request = replace(request, messages=loaded(request.messages)[0])
            call = codec.encode(request, client_request_id=None)
        except (TypeError, ValueError):
            return nothing, 0.0
        script = self._simulator.receive(call, now=0.0, utc=self._utc)
        self._simulator.finish(script, now=0.0, utc=self._utc, delivered=True)
        return script.ticket.usage or nothing, script.seconds

    def seconds(self, output_tokens: int, rng: random.Random) -> float:
        """How long one answer takes."""
        earlier = self.earlier
        if earlier is not None and earlier.seconds is not None:
            # A log-normal spread around the mean that was seen.
            return earlier.seconds * rng.lognormvariate(-(_SPREAD**2) / 2, _SPREAD)
        return ASSUMED_SECONDS + output_tokens / ASSUMED_TOKENS_PER_SECOND


_EARLIER = """
SELECT d.name, d.provider, d.base_url, d.model, count(*), avg(l.output_tokens), avg(l.ended_at - l.started_at),
       sum(coalesce(l.cached_input_tokens, 0)) * 1.0 / max(sum(l.input_tokens), 1), sum(coalesce(l.cache_write_tokens, 0)) * 1.0 / max(sum(l.input_tokens), 1),
       (SELECT e.counted / e.estimated FROM learnt e WHERE e.deployment = d.deployment)
FROM attempt_log l JOIN deployments d ON d.deployment = l.deployment
WHERE l.outcome = 'ok' AND l.input_tokens > 0 GROUP BY l.deployment
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the job's store has already."""

    ok: int = 0
    failed: int = 0
    spent_pico: int | None = None
    on_top: float | None = None
    """What retries, repairs, fallbacks and escalations cost so far, as a part of what first attempts cost; None: not known."""
    used: tuple[DayUse, ...] = ()
    """What counts towards budgets."""


def look_back(reader: StoreReader, spec: JobSpec) -> tuple[Stored, dict[str, Earlier]]:
    """What the store says of the job so far, and of each model that answered in it. Simulated dollars are told only where every model is simulated."""
    earlier: dict[str, Earlier] = {}
    simulated = all(model.provider == "simulated" for model in spec.models.values())
    try:
        rows = reader.connection.execute(_EARLIER).fetchall()
        states = dict(reader.connection.execute("SELECT state, count(*) FROM rows WHERE row IS NOT NULL GROUP BY state").fetchall())
        (spent,) = reader.connection.execute("SELECT sum(cost_pico) FROM attempt_log WHERE simulated = ?", (simulated,)).fetchone()
        present = [deployment_of(name, model) for name, model in spec.models.items()]
        used = tuple(day for day in used_by_day(reader.connection, present) if day.simulated == simulated)
        by_kind = {part.key: part.cost_pico for part in spend_by(reader.connection, "kind", simulated=simulated)}
    except sqlite3.OperationalError:
        return Stored(), {}  # a store of an older version that no run has migrated yet
    for name, provider, base_url, model_id, count, output, seconds, cached, written, ratio in rows:
        model = spec.models.get(name)
        if model is None or (model.provider, model.base_url or "", model.model) != (provider, base_url, model_id):
            continue
        earlier[name] = Earlier(
            answers=count, output_tokens=output, seconds=seconds, cached_share=cached, written_share=written, input_ratio=ratio or 1.0
        )
    first = by_kind.pop("first", None)
    on_top = sum(cost or 0 for cost in by_kind.values()) / first if first and sum(states.values()) >= ENOUGH_ANSWERS else None
    return Stored(ok=states.get(1, 0), failed=states.get(2, 0), spent_pico=spent, on_top=on_top, used=used), earlier
