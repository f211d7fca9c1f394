"""A job's state as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from batchllm.core.money import pico_from_usd, text_usd
from batchllm.report.state import JobState, ModelSpend
from batchllm.report.text import about, clean, columns, counted, limited_words, number, rows, span
from batchllm.report.words import attempt_words, error_words, money_words, row_words, token_words, unpriced_words, wants_more_money

_DAYS_SHOWN = 7


def state_lines(state: JobState, *, job: str) -> list[str]:
    """The whole picture. `job` is how the user names the job on the command line."""
    table = [("rows", row_words(state.rows, state.shared))]
    if state.errors:
        table.append(("errors", error_words(state.errors)))
    table.append(("spent", _spent(state)))
    if state.superseded_pico:
        table.append(("", f"{text_usd(state.superseded_pico)} of it for answers that were replaced"))
    table += list(_budget_rows(state))
    table += list(_spend_rows(state))
    table += [("tokens", token_words(state.tokens)), ("sent", attempt_words(state.attempts, state.requests, state.retries, state.refusals))]
    table += list(_trouble_rows(state))
    if state.state == "running":
        table.append(("speed", speed_words(state)))
        table.append(("left", f"about {about(state.eta_seconds)}" if state.eta_seconds is not None else "unknown"))
    if state.results is not None:
        table.append(("results", state.results))
    table.append(("store", state.store))
    lines = [f"{clean(state.job)}: {headline(state)}", *columns(table)]
    if state.message is not None:
        lines.append(f"  {clean(state.message)}")
    if len(state.models) > 1:
        lines += [
            "",
            *columns([("model", "id", "requests", "tokens in", "tokens out", "spent"), *map(_model_cells, state.models)], right=frozenset({2, 3, 4})),
        ]
    return [*lines, *(f"  -> {step}" for step in _steps(state, job))]


def headline(state: JobState) -> str:
    """`running for 4:02`, `finished`, `stopped by budget`."""
    if state.paused_seconds is not None:
        return f"paused for {span(state.paused_seconds)}, {state.in_flight:,} in flight (running for {span(state.seconds)})"
    if state.state == "running":
        return f"running for {span(state.seconds)}, {state.in_flight:,} in flight"
    if state.state == "finished":
        return "finished"
    return "stopped" if state.stopped_by is None else f"stopped ({state.stopped_by})"


def speed_words(state: JobState) -> str:
    """`3,012 requests/min, 398,200 tokens/min, limited by tpm (tokens per minute)`."""
    words = f"{number(state.requests_per_minute)} requests/min, {number(state.tokens_per_minute)} tokens/min"
    limited = limited_words(state.limited_by) if state.paused_seconds is None else ""
    return f"{words}, {limited}" if limited else words


def one_line(state: JobState) -> str:
    """For logs."""
    words = f"{clean(state.job)}: {state.state}, {row_words(state.rows)}, {_spent(state)}"
    return f"{words}, {speed_words(state)}" if state.state == "running" else words


def _spent(state: JobState) -> str:
    words = money_words(state.cost_pico, state.reserved_pico, simulated=state.simulated) + unpriced_words(state.cost_pico, state.unpriced)
    words = f"{words} of {text_usd(state.cap_pico)}" if state.cap_pico is not None else words
    return words if state.simulated_pico is None else f"{words}, and {text_usd(state.simulated_pico)} simulated"


def _budget_rows(state: JobState) -> Iterator[tuple[str, str]]:
    """The budgets besides the one in `spent`, and by how much that one may be overshot."""
    for left in state.budgets:
        if left.name == "budget.usd":
            over = left.used + left.reserved - left.cap
            if over > 0:
                yield "", f"may overshoot the budget of {text_usd(left.cap)} by at most {text_usd(over)}"
            continue
        words = (lambda value: f"{value:,}") if left.unit == "tokens" else text_usd
        span = "" if left.since_utc is None else " today (UTC)" if left.name.endswith("day") else " this month (UTC)"
        held = f" + {words(left.reserved)} reserved" if left.reserved else ""
        noun = " tokens" if left.unit == "tokens" else ""
        yield "", f"{words(left.used)}{held} of {words(left.cap)}{noun}{span} ({clean(left.name)})"


def _spend_rows(state: JobState) -> Iterator[tuple[str, str]]:
    """What tells more than the sum: more than one kind of attempt, day or route; what the provider itself says."""
    for what, parts in state.spend.items():
        paid = [part for part in parts if part.cost_pico is None or part.cost_pico or part.reserved_pico]
        if len(paid) < 2:
            continue
        shown = paid if what != "day" else paid[-_DAYS_SHOWN:]
        names = [f"{'route ' if what == 'route' and part.key is not None else ''}{'by name' if part.key is None else part.key}" for part in shown]
        words = ", ".join(f"{name} {text_usd(part.cost_pico)}" for name, part in zip(names, shown, strict=True))
        yield f"by {what}", words if len(shown) == len(paid) else f"... {words}"
    if state.provider_cost is not None:
        count, usd = state.provider_cost
        yield "", f"the provider itself named {text_usd(pico_from_usd(usd))} for {counted(count, 'answer')}"


def _trouble_rows(state: JobState) -> Iterator[tuple[str, str]]:
    """What trying again took, where there was any."""
    told = state.telemetry
    if told is None or not told.failed_attempts:
        return
    each = f"{told.attempts_per_answer:.3g} requests per answer, " if told.attempts_per_answer is not None else ""
    yield (
        "trouble",
        f"{each}{told.failed_attempts:,} of {told.attempts:,} failed: {', '.join(f'{code} {one.attempts:,}' for code, one in told.troubles.items())}",
    )
    cost = text_usd(told.failed_pico)
    held = f" (and {text_usd(told.held_pico)} held)" if told.held_pico else ""
    waits = (
        f"; {counted(told.waits, 'wait')} of {told.wait_seconds / told.waits:.1f} s on average, {span(told.longest_wait_seconds)} at most"
        if told.waits
        else ""
    )
    seconds = sum(one.seconds for one in told.troubles.values())
    yield "", f"they cost {cost}{held} and {span(seconds)} of {span(told.busy_seconds)} in flight{waits}"


def _model_cells(model: ModelSpend) -> tuple[str, ...]:
    spent = money_words(model.cost_pico, model.reserved_pico, simulated=model.simulated)
    return (model.model, model.model_id, f"{model.attempts:,}", f"{model.input_tokens:,}", f"{model.output_tokens:,}", spent)


def _steps(state: JobState, job: str) -> Iterator[str]:
    if state.state != "running" and (state.possibly_billed or state.other_possibly_billed):
        worst = "an unknown sum" if state.possibly_billed_unknown else f"at most {text_usd(state.possibly_billed_pico)}"
        if not state.possibly_billed:
            worst = "simulated" if not state.simulated else "real"
        attempts = state.possibly_billed or state.other_possibly_billed
        yield f"{counted(attempts, 'request')} may have been billed ({worst}): batchllm settle {job}"
    if state.paused_seconds is not None:
        yield f"let it go on: batchllm continue {job}"
    if state.rows.failed:
        yield f"{rows(state.rows.failed)} failed, see why: batchllm errors {job}"
    if state.state == "stopped":
        more = " --budget USD" if state.stopped_by == "budget" and wants_more_money(state.message) else ""
        yield f"go on: batchllm run {job}{more}"
