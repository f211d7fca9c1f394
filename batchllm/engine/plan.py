"""`batchllm plan`: what a job will take, before a cent is spent - one reading of the input, then the real engine in virtual time.

Nothing is sent, no key is asked for, and the job's store is only read. The trap: a forecast that doesn't say what it rests on is a promise, so every figure that is
a guess (the length of answers, their speed, limits that nobody declared) is told as one.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from batchllm.core.errors import SpecError, StoreError
from batchllm.cost import Prices
from batchllm.engine.access import access_without_keys, reachable
from batchllm.engine.answers import Answers
from batchllm.engine.deps import RunOptions
from batchllm.engine.facts import check_money
from batchllm.engine.lanes import most_inputs
from batchllm.engine.pace import minute_buckets
from batchllm.engine.packing import MOST_TOKENS
from batchllm.engine.plan_caps import Binding, binding_cap, days_needed, minutes_needed
from batchllm.engine.plan_count import Counted, count
from batchllm.engine.plan_left import Left, day_wait, with_what_is_left
from batchllm.engine.plan_live import Live
from batchllm.engine.plan_models import Basis, Earlier, PlanModel, Stored, look_back
from batchllm.engine.plan_notes import of_job, of_store, on_top
from batchllm.engine.plan_play import Played, Unit, how_many, play
from batchllm.engine.plan_saves import Saving, savings
from batchllm.engine.source import Source
from batchllm.spec import JobSpec, deadline_utc
from batchllm.store.read import StoreReader


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """What one model is asked first, and what that takes."""

    name: str
    provider: str
    model: str
    rows: int
    input_tokens: int
    output_expected: int
    output_worst: int | None
    cached_tokens: int
    expected_pico: int | None
    worst_pico: int | None
    """Every row at the most that is reserved for it, once."""
    counter: str
    exact: bool
    basis: Basis
    answers: int
    """Earlier answers that the expectation rests on."""
    prices: Prices | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where prompts and keys go."""

    models: tuple[str, ...]
    base_url: str
    """As written, variables unexpanded; empty for the simulated provider."""
    key: str
    """`OPENAI_API_KEY`, `none`, or where else the key comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole forecast."""

    job: str
    made_utc: float
    rows: int
    duplicates: int
    shared: int
    """Duplicates that `dedupe` answers without asking."""
    done: Mapping[str, int]
    """Rows that a run leaves alone, because the store has their outcome: `ok` or `failed`. All that follows is about the others."""
    bad: Mapping[str, int]
    nulls: int
    requests: int
    counted: int
    """Rows whose tokens were counted; the others follow from them by size."""
    models: tuple[ModelPlan, ...]
    routes: Mapping[tuple[int | None, str], int]
    seconds: float
    limited_by: str
    stopped_by: str | None
    """`budget` or `deadline`: what ends the run before its rows do."""
    stopped_at: int | None
    """Requests sent by then."""
    played: int
    binding: Binding | None
    hosts: tuple[Host, ...]
    savings: tuple[Saving, ...]
    stored: Stored
    notes: tuple[str, ...] = ()
    samples: int = 1
    live: Mapping[str, Any] | None = None
    """What real rows say, with intervals."""
    simulated: bool = False

    @property
    def bad_rows(self) -> int:
        """Rows that fail before anything is sent."""
        return sum(self.bad.values())

    def total(self, name: str) -> int | None:
        """A sum over all models; None when one of them is not known."""
        values = [getattr(model, name) for model in self.models]
        return None if any(value is None for value in values) else sum(values)


def plan_job(spec: JobSpec, environ: Mapping[str, str], options: RunOptions, *, utc: float, live: Live | None = None) -> Plan:
    """Reads, counts and plays. Blocking, up to minutes for millions of rows; not inside a running loop. Raises SpecError as a run would before it sends anything."""
    try:
        return _plan(spec, environ, options, utc=utc, live=live)
    except SpecError as error:
        raise SpecError([spec.placed(problem) for problem in error.problems]) from error.__cause__


def _plan(spec: JobSpec, environ: Mapping[str, str], options: RunOptions, *, utc: float, live: Live | None) -> Plan:
    names = reachable(spec)
    access = access_without_keys(spec, environ, names)
    check_money(spec, access, utc)
    answers = Answers(spec)
    source = Source(spec, options, environ)
    source.check()
    source.prepare_sample()
    stored, earlier = earlier_of(spec, environ)
    left_spec = with_what_is_left(spec, stored.used, utc=utc)
    models = {name: PlanModel(name, spec, access[name], utc=utc, wanted=answers.wanted, earlier=earlier.get(name)) for name in names}
    with _store_of(spec, environ) as reader:
        left = Left(reader, spec, source, answers.wanted, options.retry_failed) if reader is not None else None
        counted = count(spec, source, models, answers, left)
    times = spec.samples or 1
    planned = tuple(_of_model(models[name], counted, times) for name in names)
    units, requests = _units(spec, models, counted, times, minutes_needed(spec, planned, times))
    with _store_of(spec, environ) as reader:
        windows, by = days_needed(spec, left_spec, planned, requests, day_wait(reader, spec, utc=utc), utc=utc)
    played = play(left_spec, models, units, requests, utc=utc, days=windows > 0)
    played, stopped_at = _calendar(spec, played, windows, by, utc)
    expected = None if any(one.expected_pico is None for one in planned) else sum(one.expected_pico or 0 for one in planned)
    return Plan(
        job=spec.name,
        made_utc=utc,
        rows=counted.rows,
        duplicates=sum(counted.repeats.values()),
        shared=sum(counted.shared.values()),
        done=counted.done,
        bad=counted.bad,
        nulls=counted.nulls,
        requests=requests,
        counted=sum(len(group.entries) for group in counted.groups.values()),
        models=planned,
        routes=counted.routes,
        seconds=played.seconds,
        limited_by=played.limited_by,
        stopped_by=played.stopped_by,
        stopped_at=stopped_at,
        played=played.played,
        binding=binding_cap(left_spec, planned, requests),
        hosts=hosts_of(spec, names),
        savings=tuple(savings(spec, models, planned, counted, utc=utc)),
        stored=stored,
        notes=(*of_store(spec, environ), *on_top(stored, spec.samples), *of_job(left_spec, models, planned, counted, expected, answers, played)),
        samples=times,
        live=live.as_dict(requests, _live_seconds(left_spec, models, units, requests, live, utc)) if live is not None else None,
        simulated=all(models[name].simulated for name in names),
    )


def _live_seconds(
    spec: JobSpec, models: Mapping[str, PlanModel], units: list[Unit], requests: int, live: Live, utc: float
) -> tuple[float, float] | None:
    """The time if answers are as short, and as long, as the margin allows."""
    if live.output_tokens is None or not sum(live.output_tokens):
        return None
    middle = sum(live.output_tokens) / 2
    ends = []
    for end in live.output_tokens:
        part = end / middle
        changed = [unit._replace(output_tokens=round(unit.output_tokens * part), seconds=unit.seconds * part) for unit in units]
        ends.append(play(spec, models, changed, requests, utc=utc).seconds)
    return (min(ends), max(ends))


def earlier_of(spec: JobSpec, environ: Mapping[str, str]) -> tuple[Stored, dict[str, Earlier]]:
    """What the job's store knows, if there is one that can be read."""
    with _store_of(spec, environ) as reader:
        return look_back(reader, spec) if reader is not None else (Stored(), {})


@contextlib.contextmanager
def _store_of(spec: JobSpec, environ: Mapping[str, str]) -> Iterator[StoreReader | None]:
    """The job's store; None when there is none that a run could go on with."""
    path = spec.store_path(environ)
    try:
        reader = StoreReader(path) if path.exists() else None
    except StoreError:
        reader = None
    if reader is None:
        yield None
        return
    with reader:
        yield reader if reader.job()["name"] == spec.name else None


def _of_model(model: PlanModel, counted: Counted, times: int) -> ModelPlan:
    groups = counted.of(model.name)

    def total(field_name: str) -> int | None:
        sums = 0.0
        for group in groups:
            values = [getattr(entry.asked, field_name) for entry in group.entries]
            if None in values:
                return None
            sums += sum(values) * (group.by_size if field_name == "input_tokens" else group.by_row)
        return round(sums * times)

    earlier = model.earlier
    return ModelPlan(
        name=model.name,
        provider=model.spec.provider,
        model=model.spec.model,
        rows=counted.sent(model.name),
        input_tokens=total("input_tokens") or 0,
        output_expected=total("output_tokens") or 0,
        output_worst=total("most_output"),
        cached_tokens=total("cached_tokens") or 0,
        expected_pico=total("cost_pico"),
        worst_pico=total("worst_pico"),
        counter=model.counter.name,
        exact=model.counter.exact,
        basis=model.basis,
        answers=earlier.answers if earlier is not None else 0,
        prices=model.prices,
    )


def _units(spec: JobSpec, models: Mapping[str, PlanModel], counted: Counted, times: int, least_seconds: float) -> tuple[list[Unit], int]:
    """What is played, and how many requests it stands for."""
    rows = sum(group.rows for group in counted.groups.values()) * times
    packs = spec.endpoint == "embeddings"
    wanted = how_many(spec, rows, least_seconds) if not packs else min(rows, 20_000)
    rng = random.Random(2)
    in_order = rows == wanted and counted.whole
    chosen: list[tuple[float, Unit]] = []
    for (name, _), group in counted.groups.items():
        share = group.rows * times if rows == wanted else max(1, round(wanted * group.rows * times / rows))
        entries = list(group.entries)
        rng.shuffle(entries)
        offset = rng.random()
        # A fair sample has no order; going round it is as good as drawing.
        for nth in range(share):
            entry = entries[nth % len(entries)]
            asked = entry.asked
            seconds = asked.seconds if asked.seconds is not None else models[name].seconds(asked.output_tokens, rng)
            unit = Unit(name, asked.estimate, asked.bound, asked.cap, asked.input_tokens, asked.cached_tokens, asked.output_tokens, seconds)
            # In the input's order where all are played; else evenly mixed, so that any beginning of it is a fair sample, too.
            chosen.append((entry.position if in_order else (nth + offset) / share, unit))
    chosen.sort(key=lambda pair: pair[0])
    units = [unit for _, unit in chosen]
    if not packs:
        return units, max(rows, len(units))
    packed = _packed(spec, units)
    return packed, max(len(packed), round(len(packed) * rows / max(len(units), 1)))


def _packed(spec: JobSpec, units: list[Unit]) -> list[Unit]:
    """Embeddings go in packs, as the engine fills them: one request for many rows, no larger than the smallest burst of tokens that it must pass."""
    open_packs: dict[str, list[Unit]] = {}
    packed: list[Unit] = []
    most = {name: (most_inputs(model), _room(spec, name)) for name, model in spec.models.items()}
    for unit in units:
        pack = open_packs.setdefault(unit.model, [])
        inputs, room = most[unit.model]
        if pack and (len(pack) >= inputs or sum(one.estimate for one in pack) + unit.estimate > room):
            packed.append(_as_one(pack))
            pack.clear()
        pack.append(unit)
    return packed + [_as_one(pack) for pack in open_packs.values()]


def _room(spec: JobSpec, name: str) -> float:
    """The most tokens of one pack of a model."""
    groups = [group for group in spec.limit_groups.values() if name in group.models]
    buckets = [bucket for limits in (spec.models[name].limits, *groups) for bucket in minute_buckets(limits, 0.0)]
    return min([MOST_TOKENS, *(bucket.capacity for bucket in buckets if bucket.dimension in {"tpm", "itpm"})])


def _as_one(pack: list[Unit]) -> Unit:
    bounds = [unit.bound for unit in pack]
    return Unit(
        pack[0].model,
        sum(unit.estimate for unit in pack),
        None if None in bounds else sum(bound or 0 for bound in bounds),
        1,  # played as a question that has an answer, for which nothing else is to be held
        sum(unit.input_tokens for unit in pack),
        0,
        0,
        max(unit.seconds for unit in pack),
    )


def _calendar(spec: JobSpec, played: Played, windows: float, by: str | None, utc: float) -> tuple[Played, int | None]:
    """Limits and budgets of a day, which aren't played where they bind, and the deadline."""
    if windows > played.seconds:
        played = replace(played, seconds=windows, limited_by=by or played.limited_by)
    stopped_at = round(played.requests) if played.stopped_by is not None else None
    if spec.deadline is not None:
        left = deadline_utc(spec.deadline, now_utc=utc) - utc
        if left < played.seconds:
            stopped_at = round(played.requests * left / played.seconds)
            played = replace(played, seconds=left, stopped_by="deadline")
    return played, stopped_at


def hosts_of(spec: JobSpec, names: list[str]) -> tuple[Host, ...]:
    """Every host, and what key goes to it."""
    from batchllm.spec.model import HOSTS

    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        model = spec.models[name]
        own = HOSTS.get(model.provider)
        base = "" if model.provider == "simulated" else model.base_url or (own.base_url if own is not None else "")
        variables = model.key_envs()
        if model.provider == "simulated":
            key = "none"
        elif model.api_key_command is not None:
            key = f"what `{model.api_key_command.split()[0]}` prints"
        elif model.api_key_file is not None:
            key = f"the file {model.api_key_file}"
        else:
            key = " and ".join(variables) or "none"
        if model.headers:
            key = f"{key}; headers {', '.join(model.headers)}"
        found.setdefault((base, key), []).append(name)
    return tuple(Host(models=tuple(models), base_url=base, key=key) for (base, key), models in found.items())
