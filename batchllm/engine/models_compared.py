"""The same rows on several models: what each would cost, at standard, batch and cached prices - and, when a person wants to see them, real answers side by side.

Models of the job keep their own parameters and prices; `provider:model` stands for a plain model of the price book. The trap: a dear model with short answers can be
the cheaper one, so costs come from each model's own tokenizer and from what is known of its answers, never from prices alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from batchllm.core.errors import Problem, SpecError
from batchllm.core.nouns import Draft, Row, RowError, Usage
from batchllm.cost import Prices
from batchllm.cost.listing import find
from batchllm.engine.access import access_without_keys
from batchllm.engine.answers import Answers
from batchllm.engine.deps import RunOptions
from batchllm.engine.plan import earlier_of
from batchllm.engine.plan_models import Asked, Basis, PlanModel
from batchllm.engine.plan_saves import batch_prices
from batchllm.engine.source import Source
from batchllm.spec import JobSpec, ModelSpec, OverridesSpec, Route, literal
from batchllm.spec.model import Provider

SAMPLE = 2000
"""Rows that are counted for each model."""
ID_COLUMN, MODEL_COLUMN = "batchllm compare id", "batchllm compare model"
"""Columns that live rows get: nobody's own are called so."""
AT = " @ "
"""Between a row's id and the model, in the ids of live rows."""

Quality = Literal["budget", "standard", "premium"]
BANDS_AS_OF = "2026-11"
_BANDS: tuple[tuple[float, Quality], ...] = ((1.0, "budget"), (5.0, "standard"), (float("inf"), "premium"))
"""Below so many USD per million tokens, three of input to one of output; prices are the only measure of quality that every model has."""
_ACCOUNTS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
_PER_MILLION = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One model's figures over the same rows."""

    name: str
    provider: str
    model: str
    quality: Quality | None
    input_tokens: int
    """Of all rows, as all sums."""
    output_tokens: int
    expected_pico: int | None
    worst_pico: int | None
    batch_pico: int | None
    """By the Batch API; None where it has none."""
    cached_pico: int | None
    """If all input came from the provider's prompt cache: the least that caching can leave."""
    tiers_pico: Mapping[str, int]
    """By other service tiers: `flex`, `priority`."""
    basis: Basis
    counter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All models."""

    job: str
    rows: int
    counted: int
    skipped: int
    """Rows that no request can be made of."""
    models: tuple[Compared, ...]

    def cheapest(self, quality: Quality | None = None) -> Compared | None:
        """Of all, or of one band; None when no price is known."""
        known = [one for one in self.models if one.expected_pico is not None and (quality is None or one.quality == quality)]
        return min(known, key=lambda one: one.expected_pico or 0, default=None)


def with_models(spec: JobSpec, words: Sequence[str]) -> JobSpec:
    """The job with these models and no others: names of its own, or `provider:model`. Raises SpecError."""
    models: dict[str, ModelSpec] = {}
    for word in words:
        own = spec.models.get(word)
        provider, colon, model = word.partition(":")
        if own is not None:
            models[word] = own
        elif colon and model and provider in get_args(Provider):
            models[word] = ModelSpec.model_validate({"provider": provider, "model": model})
            if provider == "openai-compatible":
                raise SpecError(Problem(file="--models", message=f"{word!r}: where is it? Give it a base_url under `models` in the job"))
        else:
            names = f"a model of the job ({', '.join(spec.models)})" if spec.models else "a model of the job"
            raise SpecError(Problem(file="--models", message=f"{word!r} is neither {names} nor PROVIDER:MODEL, such as openai:gpt-6-luna"))
    if len(models) < 1:
        raise SpecError(Problem(file="--models", message="name the models to compare, separated by commas"))
    first = next(iter(models))
    groups = {
        name: group.model_copy(update={"models": members})
        for name, group in spec.limit_groups.items()
        if (members := tuple(member for member in group.models if member in models))
    }
    output = spec.output
    if output.on_invalid is not None:
        output = output.model_copy(update={"on_invalid": output.on_invalid.model_copy(update={"escalate": None})})
    return spec.model_copy(update={"models": models, "limit_groups": groups, "routes": (Route(use=(first,)),), "output": output})


def compare_models(spec: JobSpec, environ: Mapping[str, str], rows: int | None, *, utc: float) -> Comparison:
    """Counts and prices the same rows for each model of `with_models`. Sends nothing. `rows`: so many, stable by id; None: all."""
    names = list(spec.models)
    access = access_without_keys(spec, environ, names)
    answers = Answers(spec)
    _, earlier = earlier_of(spec, environ)
    models = {name: PlanModel(name, spec, access[name], utc=utc, wanted=answers.wanted, earlier=earlier.get(name)) for name in names}
    asked: dict[str, list[Asked]] = {name: [] for name in names}
    good = skipped = 0
    for _, draft in _drafts(spec, environ, min(rows or SAMPLE, SAMPLE)):
        if isinstance(draft, RowError):
            skipped += 1
            continue
        good += 1
        for name, model in models.items():
            asked[name].append(model.asked(model.request(draft)))
    total = _rows(spec, environ)
    wanted = min(rows, total) if rows is not None else total
    whole = round(wanted * good / max(good + skipped, 1))
    compared = tuple(_figures(models[name], asked[name], whole / max(good, 1), utc) for name in names)
    return Comparison(job=spec.name, rows=whole, counted=good, skipped=wanted - whole, models=compared)


def _drafts(spec: JobSpec, environ: Mapping[str, str], count: int) -> Iterator[tuple[Row, Draft | RowError]]:
    source = Source(spec, RunOptions(sample_count=count), environ)
    source.check()
    source.prepare_sample()
    nth = 0
    for chunk in source.chunks():
        for row in chunk:
            if source.in_scope(row, nth):
                yield row, source.drafter.draft(row)
            nth += 1


def _rows(spec: JobSpec, environ: Mapping[str, str]) -> int:
    return sum(len(chunk) for chunk in Source(spec, RunOptions(), environ).chunks())


def _figures(model: PlanModel, asked: list[Asked], factor: float, utc: float) -> Compared:
    def total(values: list[int | None]) -> int | None:
        return None if None in values else round(sum(value or 0 for value in values) * factor)

    def priced(prices: Prices | None, *, cached: bool = False) -> int | None:
        if prices is None:
            return None
        costs: list[int | None] = [
            prices.price(
                Usage(
                    input_tokens=one.input_tokens,
                    output_tokens=one.output_tokens,
                    cached_input_tokens=one.input_tokens if cached else one.cached_tokens,
                )
            )
            for one in asked
        ]
        return total(costs)

    spec = model.spec
    tiers = {}
    account = _ACCOUNTS.get(spec.provider)
    if account is not None and spec.price is None:
        for listed in find(spec.model, provider=account, utc=utc)[:1]:
            tiers = {
                word: cost
                for word, table in listed.others.items()
                if word != "batch" and (cost := priced(Prices(version=word, tiers=table))) is not None
            }
    cheaper = model.prices is not None and model.prices.tiers[0].cached_input < model.prices.tiers[0].input
    return Compared(
        name=model.name,
        provider=spec.provider,
        model=spec.model,
        quality=quality_of(model.prices),
        input_tokens=total([one.input_tokens for one in asked]) or 0,
        output_tokens=total([one.output_tokens for one in asked]) or 0,
        expected_pico=total([one.cost_pico for one in asked]),
        worst_pico=total([one.worst_pico for one in asked]),
        batch_pico=priced(batch_prices(spec, model.base_url, utc)),
        cached_pico=priced(model.prices, cached=True) if cheaper else None,
        tiers_pico=tiers,
        basis=model.basis,
        counter=model.counter.name,
    )


def quality_of(prices: Prices | None) -> Quality | None:
    """The band of a price."""
    if prices is None:
        return None
    tier = prices.tiers[0]
    blended = (3 * tier.input + tier.output) / 4 / _PER_MILLION
    return next(quality for most, quality in _BANDS if blended < most)


def live_job(spec: JobSpec, environ: Mapping[str, str], rows: int) -> tuple[JobSpec, list[dict[str, Any]]]:
    """A job that asks every model for the same rows, with a store of its own (`<name>.compare.db`; `<name>.compare.sim.db` with nothing but simulated models), and its records. Asked twice, it sends nothing twice."""
    records: list[dict[str, Any]] = []
    for row, draft in _drafts(spec, environ, rows):
        if isinstance(draft, RowError):
            continue
        key = row.custom_id if row.custom_id is not None else str(row.position)
        records += [{**row.fields, ID_COLUMN: f"{key}{AT}{name}", MODEL_COLUMN: name} for name in spec.models]
    own = "compare.sim" if all(model.provider == "simulated" for model in spec.models.values()) else "compare"
    store = spec.store_path(environ).with_name(f"{spec.name}.{own}.db")
    update = {
        "name": f"{spec.name}.{own}",
        "id": ID_COLUMN,
        "overrides": OverridesSpec(model=MODEL_COLUMN, request=spec.overrides.request),
        "store": literal(str(store)),
        "results": "none",
        "dedupe": False,
        "samples": None,
        # The rows are asked by this command alone, so it is for what they are now.
        "on_change": "rerun",
        "output": spec.output.model_copy(update={"keep": ()}),
    }
    return spec.model_copy(update=update), records
