"""A plan that was agreed to, held against what is there now: `run --plan plan.json` refuses when rows, prices or the length of answers have moved too far.

Cheaper and fewer is no drift: nobody minds. Answers are looked at as far as the job's store has some; a first run has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batchllm.core import json
from batchllm.core.errors import Problem, SpecError
from batchllm.engine.deps import RunOptions
from batchllm.engine.facts import price_finder
from batchllm.engine.plan import earlier_of
from batchllm.engine.plan_models import ENOUGH_ANSWERS
from batchllm.engine.source import Source
from batchllm.spec import JobSpec

VERSION = 1
_PER_MILLION = 10**6


def read_plan(path: Path) -> dict[str, Any]:
    """A saved plan. Raises SpecError."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise SpecError(Problem(file=str(path), message=error.strerror or "can't be read")) from None
    except json.JSONDecodeError:
        data = None
    if not isinstance(data, dict) or not isinstance(data.get("plan"), int) or not isinstance(data.get("models"), dict):
        raise SpecError(Problem(file=str(path), message="is no saved plan; make one with `batchllm plan JOB --save plan.json`"))
    if data["plan"] > VERSION:
        raise SpecError(Problem(file=str(path), message="was saved by a newer batchllm; upgrade, or plan again"))
    return data


def rates_of(spec: JobSpec, name: str, base_url: str, utc: float) -> dict[str, float] | None:
    """What a model costs now, USD per million tokens; None when no price is known."""
    model = spec.models[name]
    tier = {**spec.request, **model.request, **model.body}.get("service_tier")
    prices = price_finder(model, base_url)(model.model, utc, tier if isinstance(tier, str) else None)
    if prices is None:
        return None
    first = prices.tiers[0]
    return {"input": first.input / _PER_MILLION, "output": first.output / _PER_MILLION}


def check_drift(
    saved: Mapping[str, Any], file: str, spec: JobSpec, environ: Mapping[str, str], options: RunOptions, *, bound: float, utc: float
) -> None:
    """Raises SpecError, naming each figure that is further above the plan's than `bound` (0.1 is 10 %)."""
    if saved.get("job") != spec.name:
        raise SpecError(Problem(file=file, message=f"is the plan of another job ({saved.get('job')!r}, not {spec.name!r})"))
    words = list(_drifts(saved, spec, environ, options, bound, utc))
    if words:
        mend = f"plan again (batchllm plan ... --save {file}), or allow more with --drift"
        raise SpecError([Problem(file=file, message=f"{text}; {mend}") for text in words])


def _drifts(saved: Mapping[str, Any], spec: JobSpec, environ: Mapping[str, str], options: RunOptions, bound: float, utc: float) -> Iterator[str]:
    rows = _rows(spec, options, environ)
    planned = saved.get("rows", 0)
    if rows > planned * (1 + bound):
        yield f"the input has {rows:,} rows, the plan {planned:,}"
    _, earlier = earlier_of(spec, environ)
    for name, model in saved["models"].items():
        if name not in spec.models:
            yield f"the plan has a model {name!r}, the job has none of that name"
            continue
        own = spec.models[name]
        if model.get("model") != own.model:
            yield f"models.{name} is {own.model!r} now, in the plan {model.get('model')!r}"
            continue
        try:
            base = own.api_base(environ)
        except SpecError:
            base = own.base_url or ""
        now, then = rates_of(spec, name, base, utc), model.get("usd_per_million")
        for kind in ("input", "output"):
            if then is not None and (now is None or now[kind] > then[kind] * (1 + bound)):
                cost = "unknown" if now is None else f"${now[kind]:g} a million"
                yield f"{kind} tokens of {name} cost {cost} now, in the plan ${then[kind]:g}"
        seen, expected = earlier.get(name), model.get("mean_output_tokens")
        if seen is not None and seen.answers >= ENOUGH_ANSWERS and expected is not None and seen.output_tokens > expected * (1 + bound):
            yield f"the answers of {name} have {seen.output_tokens:.0f} tokens on average so far, in the plan {expected:.0f}"


def _rows(spec: JobSpec, options: RunOptions, environ: Mapping[str, str]) -> int:
    source = Source(spec, options, environ)
    source.prepare_sample()
    rows = nth = 0
    for chunk in source.chunks():
        rows += sum(source.in_scope(row, at) for at, row in enumerate(chunk, nth))
        nth += len(chunk)
        if source.limited and nth >= (source.limit or 0):
            break
    return rows
