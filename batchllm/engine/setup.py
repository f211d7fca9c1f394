"""From a spec to lanes: keys, hosts, prices and bounds are checked before anything is opened or sent, all problems at once (exit 2)."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from batchllm import cost, tokens
from batchllm.admit import Admission, Bucket, LimitGroup, Purse
from batchllm.core.clock import Clock
from batchllm.core.errors import Problem, SpecError
from batchllm.core.money import PICO_PER_USD
from batchllm.core.nouns import Usage
from batchllm.core.secret import Scrubber, Secret
from batchllm.core.wire import Transport
from batchllm.cost import Prices
from batchllm.engine.lane import OWN_BURST, Lane
from batchllm.providers.openai import OpenAIChat
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import JobSpec, ModelSpec, RateLimits, variables
from batchllm.store import Deployment, Store

_RATES = ("rpm", "tpm")
_MOST_WORKERS = 4096
"""Of one model."""
_UNKNOWN_SLOTS = 256
_UNKNOWN_FIRST_SLOTS = 16
_LATENCY_GUESS_SECONDS = 30.0
_SIMULATED_BASE = "http://simulator.invalid/v1"
_SIMULATED_AUDIT_RECORDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a model is reached: what is secret about it stays in here."""

    base_url: str
    key: Secret | None
    headers: Mapping[str, Secret]


def reachable(spec: JobSpec) -> list[str]:
    """Models that a row can end at: those of the routes, and all of them where rows may pin one."""
    if spec.overrides.model is not None or spec.prompt is None:
        return list(spec.models)
    used = {name for route in spec.routes for name in route.use}
    return [name for name in spec.models if name in used]


def check_access(spec: JobSpec, environ: Mapping[str, str], names: Iterable[str]) -> dict[str, Access]:
    """Keys, base URLs and headers of these models. Raises SpecError naming each missing variable."""
    problems: list[Problem] = []
    access: dict[str, Access] = {}
    file = str(spec.path) if spec.path is not None else None
    for name in names:
        model = spec.models[name]
        path = f"models.{name}"
        try:
            base = model.api_base(environ)
            headers = model.header_values(environ)
        except SpecError as error:
            problems += [
                Problem(file=file, path=f"{path}.{problem.path}" if problem.path else path, message=problem.message) for problem in error.problems
            ]
            continue
        variable = model.key_env()
        key = None
        if variable is not None:
            text = environ.get(variable, "").strip()
            if text and text.isascii() and text.isprintable():
                key = Secret(text)
            elif text:
                problems.append(
                    Problem(file=file, path=path, message=f"the key in {variable} has characters that no header can carry; was it pasted whole?")
                )
            else:
                problems.append(
                    Problem(
                        file=file,
                        path=path,
                        message=f"no key: the environment variable {variable} is not set; export it, name another with api_key_env, "
                        "or try the job without a key: --simulate",
                    )
                )
        access[name] = Access(base_url=base, key=key, headers=headers)
    if problems:
        raise SpecError(problems)
    return access


def price_finder(model: ModelSpec, base_url: str) -> Callable[[str, float, str | None], Prices | None]:
    """(model id, time, service tier) -> prices. A price in the spec always wins."""
    price = model.price
    if price is not None and price.input is not None and price.output is not None:
        own = cost.from_spec(input=price.input, output=price.output, cached_input=price.cached_input, cache_write=price.cache_write)
        return lambda _id, _utc, _tier: own
    provider = model.provider

    def find(model_id: str, utc: float, tier: str | None) -> Prices | None:
        found = cost.book(provider, model_id, base_url=base_url or None, utc=utc, service_tier=tier)
        if found is None and provider == "openai":
            # The user says that it is OpenAI's; a proxy in front of it doesn't change the bill.
            found = cost.book(provider, model_id, utc=utc, service_tier=tier)
        return found

    return find


def check_money(spec: JobSpec, access: Mapping[str, Access], utc: float) -> None:
    """Under a USD cap every reachable model needs a price and a bound of its output. Raises SpecError."""
    problems: list[Problem] = []
    file = str(spec.path) if spec.path is not None else None
    for name, reach in access.items():
        model = spec.models[name]
        half = model.price is not None and (model.price.input is None or model.price.output is None)
        if half:
            problems.append(
                Problem(file=file, path=f"models.{name}.price", message="a price needs both `input` and `output` (USD per million tokens)")
            )
            continue
        if spec.budget.usd is None:
            continue
        params: dict[str, Any] = {**spec.request, **model.request, **model.body}
        if price_finder(model, reach.base_url)(model.model, utc, params.get("service_tier")) is None:
            problems.append(
                Problem(
                    file=file,
                    path=f"models.{name}",
                    message=f"the price of {model.model!r} is not known, so the cap can't be kept; give it: price: {{input: 0.10, output: 0.50}} (USD per million tokens)",
                )
            )
        elif tokens.output_cap(params) is None and documented_output(model, reach.base_url) is None:
            problems.append(
                Problem(
                    file=file,
                    path=f"models.{name}",
                    message=f"how long an answer of {model.model!r} can get is not known, so the cap can't be kept; set request: {{max_tokens: 1000}}",
                )
            )
    if problems:
        raise SpecError(problems)


def documented_output(model: ModelSpec, base_url: str) -> int | None:
    """The model's documented maximum of output tokens."""
    facts = cost.limits(model.provider, model.model, base_url=base_url or None)
    if facts.max_output_tokens is None and model.provider == "openai":
        facts = cost.limits(model.provider, model.model)
    return facts.max_output_tokens


def scrubber(access: Mapping[str, Access], spec: JobSpec, environ: Mapping[str, str]) -> Scrubber:
    """Knows every secret of the run: keys, and what variables filled into headers and base URLs."""
    secrets: list[Secret | str] = []
    mentions: list[str] = []
    for name, reach in access.items():
        if reach.key is not None:
            secrets.append(reach.key)
        written = spec.models[name].headers
        for header, value in reach.headers.items():
            if value.reveal() != written[header]:
                secrets.append(value)
                # `Authorization: Bearer ${KEY}`: a server may echo the key alone.
                secrets += value.reveal().split()
        base = spec.models[name].base_url
        if base is not None and "${" in base:
            secrets.append(reach.base_url)
            parts = urlsplit(reach.base_url)
            # What messages of the network name, and what the variables held.
            mentions += [parts.netloc, parts.hostname or "", reach.base_url.partition("://")[2], *variables.values(base, environ)]
    return Scrubber(secrets, mentions=mentions)


def _bucket_list(limits: Any, now: float) -> list[Bucket]:
    burst = limits.burst_seconds * OWN_BURST
    return [Bucket(name, per_minute=rate, burst_seconds=burst, now=now) for name in _RATES if (rate := getattr(limits, name)) is not None]


def _slots(spec: JobSpec, model: ModelSpec) -> tuple[float, float | None]:
    """(most requests in flight, how many to begin with where the limits are to be found out)."""
    limits = model.limits
    if limits.concurrency is not None:
        return (limits.concurrency, None)
    most = float(spec.concurrency) if spec.concurrency is not None else math.inf
    if limits.rpm is not None:
        # Enough to use the rate up at a long latency; the buckets, not the slots, hold it down.
        return (min(most, max(16.0, min(1024.0, limits.rpm / 60 * _LATENCY_GUESS_SECONDS))), None)
    if limits.tpm is not None or limits.unlimited or spec.concurrency is not None:
        return (min(most, float(_UNKNOWN_SLOTS)) if spec.concurrency is None else most, None)
    return (_UNKNOWN_SLOTS, _UNKNOWN_FIRST_SLOTS)


def _most_sockets() -> int:
    """How many connections the process may open, after asking for all that it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (ValueError, OSError):
        pass
    return max(8, int(min(soft, 1_000_000)) - 64)


class Lanes:
    """All lanes of a run, with the groups and purses that they share."""

    def __init__(self, spec: JobSpec, *, clock: Clock, store: Store, cap_pico: int | None) -> None:
        now = clock.now()
        self.spec = spec
        self.clock = clock
        self.store = store
        self.by_name: dict[str, Lane] = {}
        self._sockets = _most_sockets()
        self.everything = LimitGroup("run", slots=self._most_in_flight(spec))
        self.groups = {
            name: LimitGroup(name, buckets=_bucket_list(group, now), slots=group.concurrency or math.inf) for name, group in spec.limit_groups.items()
        }
        booked = {simulated: store.totals(simulated=simulated) for simulated in (False, True)}
        self.purses = {
            simulated: Purse(cap_pico=cap_pico, spent_pico=totals.spent_pico, pinned_pico=totals.reserved_pico)
            for simulated, totals in booked.items()
        }
        self.unpriced = sum(totals.unpriced for totals in booked.values())
        """Earlier requests that cost something at a price that wasn't known: no cap can count them."""
        self.learnt = tokens.Learnt()
        self._http: Transport | None = None
        self.transports: list[Transport] = []

    def add(self, name: str, access: Access, admission: Admission, *, transport: Transport | None, answered: set[int]) -> None:
        """Sets one model up."""
        spec, clock = self.spec, self.clock
        model = spec.models[name]
        simulated = model.provider == "simulated"
        deployment = deployment_of(name, model)
        number = self.store.deployment(deployment)
        slots, first_slots = _slots(spec, model)
        slots = min(slots, self.everything.slots_max)
        own = LimitGroup(name, buckets=_bucket_list(model.limits, clock.now()), slots=slots, first_slots=first_slots)
        shared = tuple(self.groups[group] for group, members in spec.limit_groups.items() if name in members.models)
        purse = self.purses[simulated]
        finder = price_finder(model, access.base_url)
        self.by_name[name] = Lane(
            name=name,
            spec=model,
            deployment=deployment,
            deployment_id=number,
            codec=OpenAIChat(
                base_url=access.base_url or _SIMULATED_BASE,
                model=model.model,
                api_key=access.key,
                headers=access.headers,
                # OpenAI's own models read the new name only; what is merely compatible often knows the old one only.
                output_cap_name={"openai": "max_completion_tokens", "openai-compatible": "max_tokens"}.get(model.provider),  # type: ignore[arg-type]  # one of its two words, or None
                send_client_request_id=model.provider in {"openai", "simulated"},
            ),
            transport=transport or self._transport(model, finder),
            counter=tokens.counter(model.provider, model.model, base_url=access.base_url or None),
            prices=finder,
            documented_output=documented_output(model, access.base_url),
            own=own,
            shared=shared,
            queue=admission.queue((own, *shared, self.everything), purse),
            purse=purse,
            answered=number in answered,
            spec_request=dict(spec.request),
            width=int(min(slots, _MOST_WORKERS)),
            learnt=self.learnt,
        )

    def relimit(self, spec: JobSpec, changed: Collection[tuple[str, ...]]) -> None:
        """Takes over limits that were changed while the run goes on; `changed` are their keys, split at dots. What is in a bucket stays: no second burst."""
        self.everything.set_slots(self._most_in_flight(spec), adaptive=False)
        for name, group in self.groups.items():
            limits = spec.limit_groups[name]
            self._repace(group, limits, [key[-1] for key in changed if key[:2] == ("limit_groups", name)])
            group.set_slots(limits.concurrency or math.inf, adaptive=False)
        for name, lane in self.by_name.items():
            model = spec.models[name]
            keys = [key[-1] for key in changed if key[:2] == ("models", name)]
            if keys:
                self._repace(lane.own, model.limits, keys)
                lane.limit(model.limits, rates=not set(_RATES).isdisjoint(keys))
            slots, first_slots = _slots(spec, model)
            slots = min(slots, self.everything.slots_max)
            lane.own.set_slots(slots, adaptive=first_slots is not None)
            lane.resize(int(min(slots, _MOST_WORKERS)))

    def _repace(self, group: LimitGroup, limits: RateLimits, dimensions: Iterable[str]) -> None:
        for dimension in dimensions:
            if dimension not in _RATES:
                continue
            rate = getattr(limits, dimension)
            if rate is None:
                group.drop_rate(dimension)
            else:
                group.set_rate(dimension, rate, burst_seconds=limits.burst_seconds * OWN_BURST, now=self.clock.now())

    def _most_in_flight(self, spec: JobSpec) -> float:
        return min(float(spec.concurrency or self._sockets), float(self._sockets))

    def _transport(self, model: ModelSpec, finder: Callable[[str, float, str | None], Prices | None]) -> Transport:
        if model.provider == "simulated":
            clock = self.clock

            def price(model_id: str, usage: Usage) -> int | None:
                prices = finder(model_id, clock.utc(), None)
                return prices.price(usage) if prices is not None else None

            given = model.simulator.model_dump(exclude_none=True)
            given.setdefault("latency_ms", 50.0)
            transport: Transport = SimulatedTransport(
                Simulator(Settings(audit_records=_SIMULATED_AUDIT_RECORDS, **given), price=price, started=clock.now()), clock
            )
            self.transports.append(transport)
            return transport
        if self._http is None:
            from batchllm.transport.http import HttpTransport

            self._http = HttpTransport()
            self.transports.append(self._http)
        return self._http

    @property
    def simulated_only(self) -> bool:
        """Whether the sums to show are simulated dollars."""
        return all(lane.simulated for lane in self.by_name.values())


def deployment_of(name: str, model: ModelSpec) -> Deployment:
    """Who answers, as the store knows it: with the base URL as written."""
    return Deployment(name=name, provider=model.provider, base_url=model.base_url or "", model=model.model)


def cap_of(spec: JobSpec) -> int | None:
    """The cap in pico-dollars. Rounded down: a cap is never a fraction above what was said."""
    return None if spec.budget.usd is None else int(spec.budget.usd * PICO_PER_USD)
