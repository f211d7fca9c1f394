"""All lanes of a run, a lane for each key of each model, with the limit groups and purses that they share.

The trap: a run is not alone in time. What earlier ones used of a day and of the money is counted from the store, and what a person changes while it runs must not
give a bucket a second burst.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from batchllm import tokens
from batchllm.admit import Admission, Charging, LimitGroup, Purse
from batchllm.admit.charging import DAY, DIMENSIONS, MINUTE
from batchllm.admit.saturation import Saturation
from batchllm.core.clock import Clock
from batchllm.core.nouns import Usage, Wanted
from batchllm.core.wire import Transport
from batchllm.engine.access import Access, deployment_of
from batchllm.engine.budgets import Budgets, cap_of, has_token_cap, has_usd_cap
from batchllm.engine.facts import PriceFinder, documented, documented_output, price_finder
from batchllm.engine.lane import OWN_BURST, Lane
from batchllm.engine.pace import Past, charging_of, day_bucket, day_buckets, limit_of, minute_buckets, slots_of
from batchllm.engine.packing import MOST_INPUTS, Packer
from batchllm.engine.slots import MOST_WORKERS, OWN_SERVER_FIRST_SLOTS, in_flight, is_own_server, most_sockets, width_of
from batchllm.simulator import Settings, SimulatedTransport, Simulator
from batchllm.spec import JobSpec, ModelSpec, RateLimits
from batchllm.store import Store
from batchllm.store.learnt import load_learnt
from batchllm.store.read import StoreReader
from batchllm.store.windows import Sent, sent_to, used_by_day

_MOST_INPUTS = {"gemini": 100}
"""Inputs of one embeddings request, where the wire takes fewer than we put together."""
_SIMULATED_AUDIT_RECORDS = 1000


def most_inputs(model: ModelSpec) -> int:
    """How many inputs of embeddings one request to a model may have."""
    return _MOST_INPUTS.get(model.provider, MOST_INPUTS)


class Lanes:
    """One per run."""

    def __init__(self, spec: JobSpec, *, clock: Clock, store: Store, wanted: Wanted | None) -> None:
        now = clock.now()
        self.spec = spec
        self.wanted = wanted
        self.clock = clock
        self.store = store
        self.by_name: dict[str, Lane] = {}
        self._sockets = most_sockets()
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
            simulated: Purse(cap_pico=cap_of(spec), spent_pico=totals.spent_pico, pinned_pico=totals.reserved_pico)
            for simulated, totals in booked.items()
        }
        self.unpriced = sum(totals.unpriced for totals in booked.values())
        """Earlier requests that cost something at a price that wasn't known: no cap can count them."""
        counts_days = has_token_cap(spec) or any(has_usd_cap(spec, name) for name in spec.models)
        present = [deployment_of(name, model) for name, model in spec.models.items()]
        self.budgets = Budgets(spec, purses=self.purses, used=used_by_day(store.connection, present) if counts_days else (), utc=clock.utc())
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
            first.resize(min(MOST_WORKERS, sum(lane.width for lane in keys)))

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
        slots, first_slots = in_flight(spec, model)
        slots = min(slots, self.everything.slots_max)
        how = charging_of(model, access.base_url)
        key_env = access.variable or None
        buckets = [*minute_buckets(model.limits, clock.now()), *day_buckets(model.limits, how, clock, self._past([name], key_env))]
        saturation = Saturation(OWN_SERVER_FIRST_SLOTS, slots) if first_slots is not None and is_own_server(model, access.base_url) else None
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
            codec_of=lambda endpoint: access.codec(model, endpoint),
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
            width=width_of(spec, slots),
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
            slots, first_slots = in_flight(spec, model)
            slots = min(slots, self.everything.slots_max)
            for lane in first.keys:
                if keys:
                    self._repace(lane.own, model.limits, keys, [name], lane.key_env)
                    lane.limit(model.limits, rates=not set(DIMENSIONS).isdisjoint(keys))
                lane.own.set_slots(slots, adaptive=first_slots is not None)
            first.resize(min(MOST_WORKERS, width_of(spec, slots) * len(first.keys)))

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

    def _transport(self, model: ModelSpec, finder: PriceFinder) -> Transport:
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
        longer = self.spec.output.on_length == "retry"
        slack = [(lane.most_slack_pico(utc, longer=longer), int(min(lane.own.slots_max, self.everything.slots_max))) for lane in self.by_key]
        dearest = max((one for one, _ in slack), default=0)
        return min(sum(one * slots for one, slots in slack), dearest * int(self.everything.slots_max))

    @property
    def simulated_only(self) -> bool:
        """Whether the sums to show are simulated dollars."""
        return all(lane.simulated for lane in self.by_name.values())
