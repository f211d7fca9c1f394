"""The time of a job: the real engine works through a sample of it in virtual time, against a provider that answers as the forecast expects.

Each request of the sample is a line of numbers (what it counts, costs and takes), so a long prompt plays as fast as a short one. A larger job is told from two
samples: what the second half of the larger one took is what every further row takes. The trap is what doesn't grow with the rows: starting, the last answers, and the
windows of a day; those are not stretched.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchllm.core import json
from batchllm.core.events import Progress
from batchllm.core.nouns import Fault, Usage
from batchllm.core.secret import Scrubber
from batchllm.core.virtual import VirtualClock, run_virtual
from batchllm.core.wire import HttpCall, HttpReply, StreamReader, Transport
from batchllm.cost import Prices
from batchllm.engine.deps import Deps, RunOptions
from batchllm.engine.plan_models import PlanModel
from batchllm.engine.run import run_job
from batchllm.simulator import Settings
from batchllm.simulator.bucket import Buckets, charge_at_end, charge_at_start
from batchllm.simulator.openai import OpenAIChat
from batchllm.spec import JobSpec, LimitsSpec, OutputSpec, OverridesSpec, Route, SimulatorSpec, literal
from batchllm.spec.parts import ContextSpec

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane

LEAST_PLAYED = 5000
MOST_PER_SECOND = 5000.0
"""Requests that one process sends and books, about: where nothing else is in the way it is the limit."""
FAST_PER_SECOND = 1500.0
"""From here on the computer has its say, too."""
_MOST_PLAYED = 20_000
_LONG_SECONDS = 3 * 3600.0
_FEW_PLAYED = 100
_ROUNDS = 5
"""Requests in flight, so many times over, make a sample that shows the steady pace."""
_MICROSECONDS = 1e6
_LIMITS = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd")


class Unit(NamedTuple):
    """One request to be played."""

    model: str
    estimate: int
    bound: int | None
    cap: int | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How a job goes."""

    seconds: float
    limited_by: str
    requests: float
    """Sent before it ends, or is stopped."""
    stopped_by: str | None
    played: int
    """Requests that were really played."""


def how_many(spec: JobSpec, requests: int, least_seconds: float) -> int:
    """The size of the sample to play for so many requests, which take so long at least."""
    flying = 0.0
    for model in spec.models.values():
        limits = model.limits
        flying += limits.concurrency or (min(1024.0, max(16.0, limits.rpm / 2)) if limits.rpm is not None else 256)
    flying = min(flying, spec.concurrency or flying)
    most = min(requests, _MOST_PLAYED, max(LEAST_PLAYED, int(flying) * _ROUNDS))
    if least_seconds * most > _LONG_SECONDS * requests:
        # Even virtual hours cost something: the engine looks around twice a second.
        most = min(most, max(_FEW_PLAYED, int(requests * _LONG_SECONDS / least_seconds)))
    return most


def play(spec: JobSpec, models: Mapping[str, PlanModel], units: Sequence[Unit], requests: int, *, utc: float, days: bool = False) -> Played:
    """Plays the units, which stand for so many requests. `days`: windows of a day bind, and are left out of the play. Not inside a running loop."""
    if not units:
        return Played(seconds=0.0, limited_by="input", requests=0, stopped_by=None, played=0)
    if len(units) >= requests:
        return _Game(spec, models, units, requests, utc, days=days).play()
    whole = _Game(spec, models, units, requests, utc, days=True).play()
    half = _Game(spec, models, units[: len(units) // 2], requests, utc, days=True).play()
    sent = whole.requests * requests / len(units)
    each = (whole.seconds - half.seconds) / max(whole.requests - half.requests, 1)
    seconds = whole.seconds + max(each, 0.0) * max(sent - whole.requests, 0)
    # In virtual time the engine takes none; so much faster than this no machine is.
    return replace(whole, seconds=max(seconds, sent / MOST_PER_SECOND), requests=sent)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stretched(Prices):
    """Reserves what one request can cost, and books what all those cost that it stands for: so a cap gets tight in a sample as it does in the job."""

    factor: float = 1.0

    def price(self, usage: Usage, *, hour_cache: bool = False) -> int:
        return round(Prices.price(self, usage, hour_cache=hour_cache) * self.factor)


class _Game:
    """One run in virtual time."""

    def __init__(self, spec: JobSpec, models: Mapping[str, PlanModel], units: Sequence[Unit], requests: int, utc: float, *, days: bool) -> None:
        self._spec = spec
        self._models = models
        self._units = units
        self._factor = requests / len(units)
        self._utc = utc
        self._days = days
        self._limited: Tally[str] = Tally()

    def play(self) -> Played:
        with tempfile.TemporaryDirectory(prefix="batchllm-plan-") as folder:
            return run_virtual(lambda: self._play(Path(folder)))

    async def _play(self, folder: Path) -> Played:
        clock = VirtualClock(epoch=self._utc)
        clock_now = clock.now()

        def around(lane: Lane, _: Scrubber) -> Transport:
            model = self._models[lane.name]
            prices = self._stretched(model.prices)
            lane.assume(counter=_Told(), charging=model.charging, prices=lambda _id, _utc, _tier: prices, documented_output=model.documented_output)
            return _Provider(model, clock)

        deps = Deps(
            clock=clock,
            environ={},
            rng=random.Random(1),
            inline=True,
            listener=self._hear,
            around=around,
        )
        summary = await run_job(self._job(folder), deps, RunOptions(records=[_record(number, unit) for number, unit in enumerate(self._units)]))
        limited = self._limited.most_common(1)
        return Played(
            seconds=clock.now() - clock_now,
            limited_by=limited[0][0] if limited else "latency",
            requests=summary.rows.ok + summary.rows.failed,
            stopped_by=summary.stopped_by,
            played=len(self._units),
        )

    def _stretched(self, prices: Prices | None) -> Prices | None:
        if prices is None or self._factor <= 1:
            return prices
        return _Stretched(version=prices.version, tiers=prices.tiers, other_hours=prices.other_hours, factor=self._factor)

    def _hear(self, event: object) -> None:
        if isinstance(event, Progress) and event.limited_by is not None and (event.in_flight or event.waiting):
            self._limited[event.limited_by] += 1

    def _job(self, folder: Path) -> JobSpec:
        """The same models, limits and caps; every row is a line of numbers."""
        spec, part = self._spec, self._days
        models = {}
        for name, known in self._models.items():
            model = known.spec
            limits = _by_minute(model.all_limits()) if part else model.all_limits()
            models[name] = model.model_copy(
                update={
                    "provider": "simulated",
                    "base_url": None,
                    "host": None,
                    "api_key_env": None,
                    "api_key_command": None,
                    "api_key_file": None,
                    "headers": {},
                    "request": {},
                    "body": {},
                    "batch": "never",
                    "limits": limits,
                    "simulator": SimulatorSpec(),
                }
            )
        groups = {}
        for name, group in spec.limit_groups.items():
            if members := tuple(member for member in group.models if member in models):
                groups[name] = group.model_copy(update={"models": members})
        budget = spec.budget.model_copy(update={"alerts": (), "alert_command": None, "alert_webhook": None})
        if part:
            groups = {name: group.model_copy(update={"rpd": None, "tpd": None, "usd_per_day": None}) for name, group in groups.items()}
            cap = None if budget.tokens is None else max(1, round(budget.tokens / self._factor))
            budget = budget.model_copy(update={"usd_per_day": None, "tokens_per_day": None, "tokens_per_month": None, "tokens": cap})
        return spec.model_copy(
            update={
                "name": "plan",
                "input": None,
                "id": None,
                "prompt": None,
                "overrides": OverridesSpec(),
                "request": {},
                "endpoint": "chat",
                "models": models,
                "limit_groups": groups,
                "routes": (Route(use=(next(iter(models)),)),),
                "output": OutputSpec(),
                "samples": None,
                "stream": False,
                "budget": budget,
                "deadline": None,
                "prefer": "order",
                "context": ContextSpec(),
                "dedupe": False,
                "cache": False,
                "prompt_cache": "off",
                "max_failed": None,
                "keep_bodies": "none",
                "durability": "normal",
                "compress": False,
                "store": literal(str(folder / "plan.db")),
                "results": "none",
            }
        )


def _by_minute(limits: LimitsSpec) -> LimitsSpec:
    """Without the limits of a day; a model that had only those has none that need to be found out."""
    copy = limits.model_copy(update={"rpd": None, "tpd": None})
    alone = copy == LimitsSpec() and copy != limits
    return LimitsSpec.none() if alone else copy


def _record(number: int, unit: Unit) -> dict[str, Any]:
    told = [unit.estimate, -1 if unit.bound is None else unit.bound, unit.input_tokens, unit.cached_tokens, unit.output_tokens]
    told.append(round(unit.seconds * _MICROSECONDS))
    row: dict[str, Any] = {
        "custom_id": str(number),
        "model": unit.model,
        "messages": [{"role": "user", "content": " ".join(map(str, told))}],
    }
    if unit.cap is not None:
        row["request"] = {"max_tokens": unit.cap}
    return row


def _numbers(messages: Sequence[Mapping[str, Any]]) -> list[int]:
    return [int(word) for word in messages[0]["content"].split()]


class _Told:
    """A `Counter` that reads what was counted before."""

    name = "plan"
    exact = True

    def text(self, text: str) -> int:
        return len(text)

    def estimate(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int:
        return self.both(messages, params)[0]

    def bound(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> int | None:
        return self.both(messages, params)[1]

    def both(self, messages: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> tuple[int, int | None]:
        del params
        estimate, bound, *_ = _numbers(messages)
        return estimate, bound if bound >= 0 else None


_HEAD = b'{"id":"p","object":"chat.completion","created":1,"model":'
_CHOICE = b',"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":'
_REFUSED = json.dumps({"error": {"message": "Rate limit reached", "type": "requests", "param": None, "code": "rate_limit_exceeded"}})
_WIRE = OpenAIChat()


class _Provider:
    """Answers every request with the usage that it names, after the time that such an answer takes. A simulated provider's own limits refuse."""

    def __init__(self, model: PlanModel, clock: VirtualClock) -> None:
        self._clock = clock
        self._name = json.dumps(model.spec.model)
        given = model.spec.simulator
        self._accounting = given.accounting
        self._buckets: Buckets | None = None
        if model.simulated and any(getattr(given, name) is not None for name in _LIMITS):
            settings: dict[str, Any] = given.model_dump(include={*_LIMITS, "burst_seconds"}, exclude_none=True)
            self._buckets = Buckets(Settings(**settings), now=clock.now(), accounting=given.accounting)

    async def send(self, call: HttpCall, *, timeout_seconds: float) -> HttpReply | Fault:
        del timeout_seconds
        document = json.loads(call.body)
        _, _, real, cached, output, microseconds = _numbers(document["messages"])
        clock, buckets = self._clock, self._buckets
        headers: dict[str, str] = {}
        if buckets is not None:
            cap = document.get("max_completion_tokens") or document.get("max_tokens") or 0
            charge = charge_at_start(self._accounting, input_tokens=real, output_cap=cap)
            refusal = buckets.admit(charge, clock.now(), utc=clock.utc())
            headers = dict(_WIRE.headers("p", seconds=0.0, utc=clock.utc(), buckets=buckets))
            if refusal is not None:
                wait = refusal.wait_seconds if refusal.wait_seconds is not None else 60.0
                return HttpReply(status=429, body=_REFUSED, headers={**headers, "retry-after-ms": str(int(wait * 1000) + 1)})
        await clock.sleep(microseconds / _MICROSECONDS)
        if buckets is not None:
            usage = Usage(input_tokens=real, output_tokens=output, cached_input_tokens=cached)
            buckets.settle(charge, charge_at_end(self._accounting, usage), clock.now(), utc=clock.utc())
        told = {"prompt_tokens": real, "completion_tokens": output, "prompt_tokens_details": {"cached_tokens": cached}}
        return HttpReply(status=200, body=_HEAD + self._name + _CHOICE + json.dumps(told) + b"}", headers=headers)

    async def stream(self, call: HttpCall, reader: StreamReader, *, timeout_seconds: float, stall_seconds: float) -> HttpReply | Fault:
        del reader, stall_seconds
        return await self.send(call, timeout_seconds=timeout_seconds)

    async def close(self) -> None:
        """Nothing is open."""
