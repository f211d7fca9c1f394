"""A plan as text and as the object of `plan --json`. What is a guess is told as one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from batchllm.core.money import PICO_PER_USD, text_usd, usd_from_pico
from batchllm.engine.plan import ModelPlan, Plan
from batchllm.engine.plan_drift import VERSION
from batchllm.report.text import LIMITED_BY, about, clean, columns, counted, rows

_PER_MILLION = 10**6


def plan_lines(plan: Plan, *, job: str) -> Iterator[str]:
    """For a terminal. `job` is how the user names the job on the command line."""
    yield f"{clean(plan.job)}: {rows(plan.rows)}{_row_notes(plan)}"
    table = [("tokens", _tokens(plan)), ("cost", _cost(plan)), ("time", _time(plan))]
    if plan.binding is not None:
        one = plan.binding
        fits = f"only {rows(one.rows_at_once)} fit under it at once" if one.rows_at_once else "not even one row fits under it"
        table.append(("cap", f"{one.budget}: {fits}{f', so {one.rounds:,} rounds' if one.rounds else ''}"))
    if plan.stopped_by is not None:
        table.append(("", f"stops by the {plan.stopped_by} after about {counted(plan.stopped_at or 0, 'request')}"))
    if plan.stored.ok or plan.stored.failed:
        ok, failed = plan.done.get("ok", 0), plan.done.get("failed", 0)
        spent = f"{text_usd(plan.stored.spent_pico)}{' simulated' if plan.simulated else ''} spent"
        rest = "the figures are of what is left" if plan.requests else "nothing is left to send"
        table.append(("so far", f"{ok:,} ok and {failed:,} failed rows stay as they are, {spent}; {rest}"))
    yield from columns(table)
    yield from _live(plan)
    yield ""
    head = ("model", "id", "rows", "tokens in", "out", "expected", "at most", "counted by", "answers")
    yield from columns([head, *(_cells(one, plan) for one in plan.models)], right=frozenset({2, 3, 4, 5, 6}))
    if len(plan.routes) > 1:
        yield ""
        for (rule, name), number in sorted(plan.routes.items(), key=lambda item: (item[0][0] is None, item[0])):
            yield f"  {'named by the row' if rule is None else f'route {rule}'} -> {name}: {rows(number)}"
    yield ""
    for host in plan.hosts:
        where = host.base_url or "the simulator in this process"
        key = "no key" if host.key == "none" else f"gets {host.key}"
        yield f"  {clean(where)} ({', '.join(host.models)}): {clean(key)}"
    if plan.savings:
        yield ""
        for saving in plan.savings:
            yield f"  {text_usd(saving.saved_pico)} less with {clean(saving.words)}"
    if plan.notes:
        yield ""
        for note in plan.notes:
            yield f"  note: {clean(note)}"
    sent = "nothing was sent" if plan.live is None else f"{rows(plan.live['rows'])} were sent"
    what = "start it" if not plan.done else "go on with it"
    yield f"  -> {sent}; {what}: batchllm run {job}" if plan.requests or not plan.done else f"  -> {sent}, and nothing is left to send"


def _row_notes(plan: Plan) -> str:
    words = []
    if plan.bad:
        words.append(f"{counted(plan.bad_rows, 'bad row')} ({', '.join(f'{code} {number:,}' for code, number in sorted(plan.bad.items()))})")
    if plan.duplicates:
        shared = (
            "all share an answer" if plan.shared == plan.duplicates else f"{plan.shared:,} share an answer" if plan.shared else "each is asked for"
        )
        words.append(f"{counted(plan.duplicates, 'duplicate')} ({shared})")
    if plan.samples > 1:
        words.append(f"{plan.samples} samples each")
    if plan.counted < sum(one.rows for one in plan.models):
        words.append(f"tokens counted on {plan.counted:,} of them")
    return f"; {', '.join(words)}" if words else ""


def _tokens(plan: Plan) -> str:
    worst = plan.total("output_worst")
    return f"{plan.total('input_tokens'):,} in, {plan.total('output_expected'):,} out expected, {'an unknown number' if worst is None else f'{worst:,}'} at most"


def _cost(plan: Plan) -> str:
    simulated = " simulated" if plan.simulated else ""
    return f"{text_usd(plan.total('expected_pico'))}{simulated} expected, {text_usd(plan.total('worst_pico'))} at most (each row once; retries and fallbacks come on top)"


def _time(plan: Plan) -> str:
    played = f"{counted(plan.played, 'request')} played" if plan.played < plan.requests else "every request played"
    return f"about {about(plan.seconds)}, {LIMITED_BY.get(plan.limited_by, plan.limited_by)}; {played} by the engine in virtual time"


def _cells(one: ModelPlan, plan: Plan) -> tuple[str, ...]:
    mean = one.output_expected / max(one.rows * plan.samples, 1)
    basis = {
        "learnt": f"~{mean:.0f} tokens, as {one.answers:,} so far",
        "simulated": f"~{mean:.0f} tokens, simulated",
        "assumed": f"{mean:.0f} tokens, assumed",
    }
    if not one.rows:
        return (one.name, one.model, "0", "", "", "", "", "", "only if others fail" if plan.requests else "")
    return (
        one.name,
        one.model,
        f"{one.rows:,}",
        f"{one.input_tokens:,}",
        f"{one.output_expected:,}",
        text_usd(one.expected_pico),
        text_usd(one.worst_pico),
        one.counter if one.exact else f"{one.counter} (about)",
        basis[one.basis] if one.output_worst != 0 else "vectors",
    )


def _live(plan: Plan) -> Iterator[str]:
    live = plan.live
    if live is None:
        return
    yield f"  by {rows(live['rows'])} that were really sent, with 95 % of certainty:"
    table = []
    if live["cost_usd"] is not None:
        low, high = live["cost_usd"]
        table.append(("cost", f"{text_usd(round(low * PICO_PER_USD))} to {text_usd(round(high * PICO_PER_USD))} in all"))
    if live["output_tokens"] is not None:
        table.append(("answers", "{:.0f} to {:.0f} tokens on average".format(*live["output_tokens"])))
    table.append(("good", f"{live['ok']:,} of {live['rows']:,} ({live['valid'][0]:.0%} to {live['valid'][1]:.0%} of all)"))
    if live["seconds"] is not None:
        table.append(("time", f"{about(live['seconds'][0])} to {about(live['seconds'][1])}"))
    yield from columns(table, indent="    ")


def as_dict(plan: Plan) -> dict[str, Any]:
    """The object of `plan --json`, and what `--save` writes: the contract's keys first."""
    return {
        "job": plan.job,
        "rows": plan.rows,
        "duplicates": plan.duplicates,
        "bad_rows": plan.bad_rows,
        "tokens": {name: plan.total(field) for name, field in _TOKENS.items()},
        "cost_usd": {name: _usd(plan.total(field)) for name, field in _COSTS.items()},
        "seconds": round(plan.seconds, 3),
        "limited_by": plan.limited_by,
        "models": {one.name: _model(one, plan) for one in plan.models},
        "errors": dict(plan.bad),
        "shared": plan.shared,
        "done": {"ok": plan.done.get("ok", 0), "failed": plan.done.get("failed", 0)},
        "nulls": plan.nulls,
        "requests": plan.requests,
        "counted_rows": plan.counted,
        "played_requests": plan.played,
        "stopped_by": plan.stopped_by,
        "stopped_at": plan.stopped_at,
        "cap": None
        if plan.binding is None
        else {"budget": plan.binding.budget, "rows_at_once": plan.binding.rows_at_once, "rounds": plan.binding.rounds},
        "routes": [{"route": rule, "model": name, "rows": number} for (rule, name), number in plan.routes.items()],
        "hosts": [{"base_url": host.base_url, "models": list(host.models), "key": host.key} for host in plan.hosts],
        "savings": [{"by": one.by, "model": one.model, "usd": usd_from_pico(one.saved_pico), "how": one.words} for one in plan.savings],
        "stored": {"ok": plan.stored.ok, "failed": plan.stored.failed, "cost_usd": _usd(plan.stored.spent_pico)},
        "live": plan.live,
        "notes": list(plan.notes),
        "made": datetime.fromtimestamp(plan.made_utc, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "plan": VERSION,
    }


_TOKENS = {"input": "input_tokens", "output_expected": "output_expected", "output_worst": "output_worst"}
_COSTS = {"expected": "expected_pico", "worst": "worst_pico"}


def _model(one: ModelPlan, plan: Plan) -> dict[str, Any]:
    tier = one.prices.tiers[0] if one.prices is not None else None
    return {
        "rows": one.rows,
        "tokens": {name: getattr(one, field) for name, field in _TOKENS.items()},
        "cost_usd": {name: _usd(getattr(one, field)) for name, field in _COSTS.items()},
        "provider": one.provider,
        "model": one.model,
        "counter": one.counter,
        "exact": one.exact,
        "output_basis": one.basis,
        "mean_output_tokens": round(one.output_expected / (one.rows * plan.samples), 1) if one.rows else None,
        "usd_per_million": {"input": tier.input / _PER_MILLION, "output": tier.output / _PER_MILLION} if tier is not None else None,
        "price_version": one.prices.version if one.prices is not None else None,
    }


def _usd(pico: int | None) -> float | None:
    return None if pico is None else usd_from_pico(pico)
