"""What a plan says besides its figures: what they are a guess of, what comes on top, and what will stop the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from batchllm.core.errors import StoreError
from batchllm.engine.answers import Answers
from batchllm.engine.plan_count import Counted
from batchllm.engine.plan_models import ENOUGH_ANSWERS, PlanModel, Stored
from batchllm.engine.plan_play import FAST_PER_SECOND, Played
from batchllm.spec import JobSpec
from batchllm.store.read import StoreReader

if TYPE_CHECKING:
    from batchllm.engine.plan import ModelPlan

_WORTH_SAYING = 0.01


def of_store(spec: JobSpec, environ: Mapping[str, str]) -> list[str]:
    """What a run will say of the store instead of going on."""
    path = spec.store_path(environ)
    if not path.exists():
        return []
    try:
        with StoreReader(path) as reader:
            name = reader.job()["name"]
    except StoreError as error:
        return [str(error)]
    return (
        [f"{path}: this store belongs to the job {name!r}, so a run stops there; give this one another `name` or `store`"]
        if name != spec.name
        else []
    )


def on_top(stored: Stored, samples: int | None) -> list[str]:
    """What further attempts cost so far. (Of several samples all but one are counted as further attempts.)"""
    if stored.on_top is None or stored.on_top < _WORTH_SAYING or samples is not None:
        return []
    part = f"{stored.on_top:.0%} of" if stored.on_top < 1 else f"{stored.on_top:.1f} times"
    return [f"so far, further attempts (retries, repairs, other models) cost {part} what first ones did: that comes on top of the cost expected"]


def of_job(
    spec: JobSpec,
    models: Mapping[str, PlanModel],
    planned: tuple[ModelPlan, ...],
    counted: Counted,
    expected: int | None,
    answers: Answers,
    played: Played,
) -> list[str]:
    """What is to be known of the models, the answers and the budget."""
    notes = []
    for one in planned:
        model = models[one.name]
        limits = model.spec.limits
        if not one.rows:
            continue
        if not limits.declared and not limits.unlimited and not model.simulated:
            notes.append(f"no limits are declared for {one.name}: a run finds them out; the time supposes that there are none")
        if model.earlier is None and not model.simulated and spec.endpoint != "embeddings":
            notes.append(
                f"the answers of {one.name} are assumed to have {one.output_expected // max(one.rows * (spec.samples or 1), 1)} tokens and to take 1 s and 1/50 s a token; "
                f"once {ENOUGH_ANSWERS} answers are in the store, theirs are taken (--live K sends some)"
            )
        if one.cached_tokens and not model.simulated:
            part = one.cached_tokens / max(one.input_tokens, 1)
            notes.append(
                f"{part:.0%} of the input of {one.name} is expected to be read from the provider's cache (`prompt_cache`); the most counts none of it"
            )
        if one.expected_pico is None:
            notes.append(f"the price of {one.model!r} is not known; give models.{one.name}.price")
        elif one.worst_pico is None:
            notes.append(f"the most that {one.name} can cost is not known: no bound of its answers (or of its input) is")
    if played.requests > FAST_PER_SECOND * played.seconds and played.played > FAST_PER_SECOND:
        notes.append("at such a speed this computer is the limit, not the provider: a process does some thousand requests a second")
    if answers.checks:
        words = f", then {' and '.join(answers.ladder)} {'is' if len(answers.ladder) == 1 else 'are'} asked" if answers.ladder else ""
        notes.append(f"answers that aren't valid are asked for again (`output`){words}: that comes on top, and --live K shows how often it happens")
    if spec.cache:
        notes.append("answers that the cache (`cache`) has from other jobs aren't known to the plan: they come on top, at no cost")
    if counted.changed:
        how = "a run asks them again" if spec.on_change == "rerun" else "a run asks what to do about them (--on-change rerun or keep)"
        notes.append(f"{counted.changed:,} rows were answered and ask something else now: {how}; the plan counts them as asked again")
    if counted.nulls:
        notes.append(f"{counted.nulls:,} nulls are shown as nothing by the prompt")
    if expected is not None and spec.budget.usd is not None:
        cap = int(spec.budget.usd * 10**12)
        if expected > cap:
            notes.append("what is left of budget.usd is below the expected cost: the run stops before its end")
    return notes
