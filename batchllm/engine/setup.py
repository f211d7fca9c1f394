"""From a spec to lanes: keys, hosts, prices and bounds are checked before anything is opened or sent, all problems at once (exit 2)."""

from __future__ import annotations

import ipaddress
import math
import resource
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

from batchllm import cost, tokens
from batchllm.admit import Admission, Charging, LimitGroup, Purse
from batchllm.admit.charging import DAY, DIMENSIONS, MINUTE
from batchllm.admit.saturation import Saturation
from batchllm.core.clock import Clock
from batchllm.core.errors import Problem, SpecError
from batchllm.core.money import PICO_PER_USD
from batchllm.core.nouns import Usage, Wanted
from batchllm.core.secret import Scrubber, Secret
from batchllm.core.wire import Transport
from batchllm.cost import Prices
from batchllm.cost.facts import ModelFacts
from batchllm.engine.budgets import Budgets, has_token_cap, has_usd_cap
from batchllm.engine.keys import NoKey, read_keys
from batchllm.engine.lane import OWN_BURST, Lane, paced
from batchllm.engine.pace import Past, charging_of, day_bucket, day_buckets, limit_of, minute_buckets, slots_of
from batchllm.engine.packing import MOST_INPUTS, Packer
from batchllm.providers.capabilities import output_cap_default
from batchllm.providers.codecs import Unserved, codec_for
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import JobSpec, ModelSpec, RateLimits, variables
from batchllm.store import Deployment, Store
from batchllm.store.learnt import load_learnt
from batchllm.store.read import StoreReader
from batchllm.store.windows import Sent, sent_to, used_by_day

_MOST_WORKERS = 4096
"""Of one model."""
_MOST_INPUTS = {"gemini": 100}
"""Inputs of one embeddings request, where the wire takes fewer than we put together."""
_UNKNOWN_SLOTS = 256
_UNKNOWN_FIRST_SLOTS = 16
_OWN_SERVER_FIRST_SLOTS = 4
_LATENCY_GUESS_SECONDS = 30.0
_SIMULATED_BASE = "http://simulator.invalid/v1"
_SIMULATED_AUDIT_RECORDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a model is reached: what is secret about it stays in here."""

    base_url: str
    key: Secret | None
    headers: Mapping[str, Secret]
    variable: str = ""
    """The variable that holds the key, where there are several."""
    others: tuple[Access, ...] = ()
    """By the further keys of the same model."""

    @property
    def each(self) -> tuple[Access, ...]:
        """By each of its keys."""
        return (self, *self.others)


def most_inputs(model: ModelSpec) -> int:
    """How many inputs of embeddings one request to a model may have."""
    return _MOST_INPUTS.get(model.provider, MOST_INPUTS)


def reachable(spec: JobSpec) -> list[str]:
    """Models that a row can end at: those of the routes, and all of them where rows may pin one."""
    if spec.overrides.model is not None or spec.prompt is None:
        return list(spec.models)
    used = {name for route in spec.routes for name in route.use}
    used |= set(spec.output.on_invalid.escalate or ()) if spec.output.on_invalid is not None else set()
    return [name for name in spec.models if name in used]


def check_access(spec: JobSpec, environ: Mapping[str, str], names: Iterable[str]) -> dict[str, Access]:
    """Keys, base URLs and headers of these models; commands that print a key run here. Raises SpecError naming each missing variable."""
    problems: list[Problem] = []
    access: dict[str, Access] = {}
    ran: dict[str, str] = {}
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
        keys: dict[str, Secret | None] = {"": None}
        try:
            keys = read_keys(model, environ, spec.folder, ran)
        except NoKey as error:
            problems.append(Problem(file=file, path=path, message=str(error)))
        try:
            codec_for(
                provider=model.provider,
                endpoint=spec.endpoint,
                base_url=base or _SIMULATED_BASE,
                model=model.model,
                api_key=None,
                headers=headers,
                host=model.quirks,
            )
        except Unserved as error:
            problems.append(Problem(file=file, path=path, message=str(error)))
        ways = [Access(base_url=base, key=key, headers=headers, variable=variable if len(keys) > 1 else "") for variable, key in keys.items()]
        access[name] = replace(ways[0], others=tuple(ways[1:]))
    if problems:
        raise SpecError(problems)
    return access


_WITH_A_LIST = frozenset({"openai", "anthropic", "gemini"})
"""Behind whatever `base_url`, the user says that it is theirs: a proxy in front of them changes neither the bill nor the model."""


def price_finder(model: ModelSpec, base_url: str) -> Callable[[str, float, str | None], Prices | None]:
    """(model id, time, service tier) -> prices. A price in the spec always wins; a model on one's own Ollama is free."""
    price = model.price
    if price is not None and price.input is not None and price.output is not None:
        own = cost.from_spec(input=price.input, output=price.output, cached_input=price.cached_input, cache_write=price.cache_write)
        return lambda _id, _utc, _tier: own
    provider = model.provider
    if provider == "ollama" and not is_cloud(model.model, base_url):
        free = cost.from_spec(input=Decimal(0), output=Decimal(0))
        return lambda _id, _utc, _tier: free

    def find(model_id: str, utc: float, tier: str | None) -> Prices | None:
        found = cost.book(provider, model_id, base_url=base_url or None, utc=utc, service_tier=tier)
        if found is None and provider in _WITH_A_LIST:
            found = cost.book(provider, model_id, utc=utc, service_tier=tier)
        return found

    return find


def is_cloud(model_id: str, base_url: str) -> bool:
    """Whether Ollama's own computers answer, not the user's: that costs something, and nobody says what."""
    host = (urlsplit(base_url).hostname or "").lower()
    return host == "ollama.com" or host.endswith(".ollama.com") or model_id.endswith(("-cloud", ":cloud"))


def check_money(spec: JobSpec, access: Mapping[str, Access], utc: float) -> None:
    """Under a cap every reachable model needs a bound of its output, and under one in dollars a price. Raises SpecError."""
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
        dollars = has_usd_cap(spec, name)
        if not dollars and not has_token_cap(spec):
            continue
        params: dict[str, Any] = {**spec.request, **model.request, **model.body}
        if dollars and price_finder(model, reach.base_url)(model.model, utc, params.get("service_tier")) is None:
            problems.append(
                Problem(
                    file=file,
                    path=f"models.{name}",
                    message=f"the price of {model.model!r} is not known, so the cap can't be kept; give it: price: {{input: 0.10, output: 0.50}} (USD per million tokens)",
                )
            )
        elif spec.endpoint != "embeddings" and tokens.output_cap(params) is None and documented_output(model, reach.base_url) is None:
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
    """The most output tokens of an answer where the request names no cap: the model's documented maximum, or the one that the wire sends."""
    if model.provider == "anthropic":
        # Its requests must name a cap.
        return output_cap_default(model.model)
    return documented(model, base_url).max_output_tokens


def documented(model: ModelSpec, base_url: str) -> ModelFacts:
    """What is documented of the model, or said by the spec."""
    facts = cost.limits(model.provider, model.model, base_url=base_url or None)
    if facts.max_output_tokens is None and model.provider in _WITH_A_LIST:
        facts = cost.limits(model.provider, model.model)
    told = model.context_window or _asked_window(model)
    return facts if told is None else replace(facts, context_window=told)


def _asked_window(model: ModelSpec) -> int | None:
    """The window that a request asks Ollama for."""
    options = model.body.get("options") if model.provider == "ollama" else None
    asked = options.get("num_ctx") if isinstance(options, dict) else None
    return asked if isinstance(asked, int) and asked > 0 else None


def scrubber(access: Mapping[str, Access], spec: JobSpec, environ: Mapping[str, str]) -> Scrubber:
    """Knows every secret of the run: keys, and what variables filled into headers and base URLs."""
    secrets: list[Secret | str] = []
    mentions: list[str] = []
    for name, reach in access.items():
        secrets += [way.key for way in reach.each if way.key is not None]
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


def _slots(spec: JobSpec, model: ModelSpec) -> tuple[float, float | None]:
    """(most requests in flight, how many to begin with where the limits are to be found out)."""
    limits = model.limits
    if limits.concurrency is not None:
        return (limits.concurrency, None)
    most = float(spec.concurrency) if spec.concurrency is not None else math.inf
    if limits.rpm is not None:
        # Enough to use the rate up at a long latency; the buckets, not the slots, hold it down.
        return (min(most, max(16.0, min(1024.0, limits.rpm / 60 * _LATENCY_GUESS_SECONDS))), None)
    if paced(limits) or limits.unlimited or spec.concurrency is not None:
        return (min(most, float(_UNKNOWN_SLOTS)) if spec.concurrency is None else most, None)
    return (_UNKNOWN_SLOTS, _UNKNOWN_FIRST_SLOTS)


_OWN_SERVERS = frozenset({"vllm", "sglang", "llamacpp", "ollama"})


def is_own_server(model: ModelSpec, base_url: str) -> bool:
    """Whether a model runs on a server of the user's own, which has a throughput rather than limits."""
    if model.quirks is not None:
        return model.quirks.name in _OWN_SERVERS
    if model.provider == "ollama":
        return True
    host = urlsplit(base_url).hostname or ""
    if model.provider != "openai-compatible" or not host:
        return False
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith((".local", ".internal", ".lan"))


def _width(spec: JobSpec, slots: float) -> int:
    """Workers of a lane: one for each row in flight."""
    rows = slots * MOST_INPUTS if spec.endpoint == "embeddings" else slots
    return int(min(rows, _MOST_WORKERS))


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

    def __init__(self, spec: JobSpec, *, clock: Clock, store: Store, cap_pico: int | None, wanted: Wanted | None) -> None:
        now = clock.now()
        self.spec = spec
        self.wanted = wanted
        self.clock = clock
        self.store = store
        self.by_name: dict[str, Lane] = {}
        self._sockets = _most_sockets()
        self.everything = LimitGroup("run", slots=self._most_in_flight(spec))
        self.groups = {
            name: LimitGroup(
                name,
                buckets=[*minute_buckets(group, now), *day_buckets(group, self._charging_of(group.models), clock, self._past(group.models))],
                slots=slots_of(group),
            )
            for name, group in spec.limit_groups.items()
        }
        booked = {simulated: store.totals(simulated=simulated) for simulated in (False, True)}
        self.purses = {
            simulated: Purse(cap_pico=cap_pico, spent_pico=totals.spent_pico, pinned_pico=totals.reserved_pico)
            for simulated, totals in booked.items()
        }
        self.unpriced = sum(totals.unpriced for totals in booked.values())
        """Earlier requests that cost something at a price that wasn't known: no cap can count them."""
        counts_days = has_token_cap(spec) or any(has_usd_cap(spec, name) for name in spec.models)
        self.budgets = Budgets(spec, purses=self.purses, used=used_by_day(store.connection) if counts_days else (), utc=clock.utc())
        self.learnt = tokens.Learnt()
        self._known = load_learnt(store.connection)
        self._http: Transport | None = None
        self.transports: list[Transport] = []

    def _charging_of(self, names: Iterable[str]) -> Charging:
        """How the account of a group counts: as that of its first model."""
        model = self.spec.models[next(iter(names))]
        return charging_of(model, model.base_url or "")

    def _past(self, names: Iterable[str], key_env: str | None = None) -> Past:
        """What was sent to these models (of several keys: by this one), by the store."""
        wanted = [deployment_of(name, self.spec.models[name]) for name in names]

        def since(utc: float) -> list[Sent]:
            if self.store.writer is None:
                return sent_to(self.store.connection, wanted, since_utc=utc, key_env=key_env)
            # The connection is the writer's by now.
            with StoreReader(self.store.path) as reader:
                return sent_to(reader.connection, wanted, since_utc=utc, key_env=key_env)

        return since

    def add(self, name: str, access: Access, admission: Admission, *, transport: Transport | None, answered: set[int]) -> None:
        """Sets one model up, with a lane for each of its keys: limits, refusals and outages are a key's own."""
        keys = tuple(self._lane(name, way, admission, transport=transport, answered=answered) for way in access.each)
        first = self.by_name[name] = keys[0]
        for lane in keys:
            lane.keys = keys
            lane.lengths = first.lengths
        if len(keys) > 1:
            first.resize(min(_MOST_WORKERS, sum(lane.width for lane in keys)))

    @property
    def by_key(self) -> list[Lane]:
        """All models, by each of their keys."""
        return [lane for first in self.by_name.values() for lane in first.keys]

    def _lane(self, name: str, access: Access, admission: Admission, *, transport: Transport | None, answered: set[int]) -> Lane:
        spec, clock = self.spec, self.clock
        model = spec.models[name]
        simulated = model.provider == "simulated"
        deployment = deployment_of(name, model)
        number = self.store.deployment(deployment)
        slots, first_slots = _slots(spec, model)
        slots = min(slots, self.everything.slots_max)
        how = charging_of(model, access.base_url)
        key_env = access.variable or None
        buckets = [*minute_buckets(model.limits, clock.now()), *day_buckets(model.limits, how, clock, self._past([name], key_env))]
        saturation = Saturation(_OWN_SERVER_FIRST_SLOTS, slots) if first_slots is not None and is_own_server(model, access.base_url) else None
        if saturation is not None:
            first_slots = saturation.slots
        own = LimitGroup(name, buckets=buckets, slots=slots, first_slots=first_slots, saturation=saturation)
        shared = tuple(self.groups[group] for group, members in spec.limit_groups.items() if name in members.models)
        purse = self.purses[simulated]
        finder = price_finder(model, access.base_url)
        lane = Lane(
            name=name,
            spec=model,
            deployment=deployment,
            deployment_id=number,
            codec_of=lambda endpoint: codec_for(
                provider=model.provider,
                endpoint=endpoint,
                base_url=access.base_url or _SIMULATED_BASE,
                model=model.model,
                api_key=access.key,
                headers=access.headers,
                host=model.quirks,
            ),
            transport=transport or self._transport(model, finder),
            counter=tokens.counter(model.provider, model.model, base_url=access.base_url or None),
            prices=finder,
            documented_output=documented_output(model, access.base_url),
            own=own,
            shared=shared,
            queue=admission.queue((own, *shared, self.everything), purse, self.budgets.of(name, simulated=simulated)),
            purse=purse,
            answered=number in answered,
            spec_request=dict(spec.request),
            width=_width(spec, slots),
            learnt=self.learnt,
            streams=spec.stream and spec.endpoint != "embeddings",
            wanted=self.wanted,
            window=documented(model, access.base_url).context_window,
            charging=how,
            known=self._known.get(number),
            reserves_learnt=spec.budget.reserve == "learned",
            key_env=key_env,
        )
        lane.packer = Packer(most=most_inputs(model))
        return lane

    def relimit(self, spec: JobSpec, changed: Collection[tuple[str, ...]]) -> None:
        """Takes over limits that were changed while the run goes on; `changed` are their keys, split at dots. What is in a bucket stays: no second burst."""
        self.everything.set_slots(self._most_in_flight(spec), adaptive=False)
        for name, group in self.groups.items():
            limits = spec.limit_groups[name]
            self._repace(group, limits, [key[-1] for key in changed if key[:2] == ("limit_groups", name)], limits.models)
            group.set_slots(slots_of(limits), adaptive=False)
        for name, first in self.by_name.items():
            model = spec.models[name]
            keys = [key[-1] for key in changed if key[:2] == ("models", name)]
            slots, first_slots = _slots(spec, model)
            slots = min(slots, self.everything.slots_max)
            for lane in first.keys:
                if keys:
                    self._repace(lane.own, model.limits, keys, [name], lane.key_env)
                    lane.limit(model.limits, rates=not set(DIMENSIONS).isdisjoint(keys))
                lane.own.set_slots(slots, adaptive=first_slots is not None)
            first.resize(min(_MOST_WORKERS, _width(spec, slots) * len(first.keys)))

    def _repace(self, group: LimitGroup, limits: RateLimits, keys: Collection[str], names: Iterable[str], key_env: str | None = None) -> None:
        for dimension in DIMENSIONS if "share" in keys else [name for name in DIMENSIONS if name in keys]:
            limit = limit_of(limits, dimension)
            if limit is None:
                group.drop_rate(dimension)
            elif dimension in MINUTE:
                group.set_rate(dimension, limit, burst_seconds=limits.burst_seconds * OWN_BURST, now=self.clock.now())
            elif dimension in DAY:
                names = list(names)
                group.set_day(day_bucket(dimension, limit, self._charging_of(names), self.clock, self._past(names, key_env)), self.clock.now())

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
        return self.http()

    def http(self) -> Transport:
        """The sockets that this run's models share."""
        if self._http is None:
            from batchllm.transport.http import HttpTransport

            self._http = HttpTransport()
            self.transports.append(self._http)
        return self._http

    def most_slack_pico(self, utc: float) -> int:
        """The most by which requests in flight can cost more than is held for them (`budget.reserve: learned`)."""
        slack = [(lane.most_slack_pico(utc), int(min(lane.own.slots_max, self.everything.slots_max))) for lane in self.by_key]
        dearest = max((one for one, _ in slack), default=0)
        return min(sum(one * slots for one, slots in slack), dearest * int(self.everything.slots_max))

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
