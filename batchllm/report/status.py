"""A job's state as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from batchllm.core.money import text_usd
from batchllm.report.state import JobState, ModelSpend
from batchllm.report.text import about, clean, columns, counted, limited_words, number, rows, span
from batchllm.report.words import attempt_words, error_words, money_words, row_words, token_words, unpriced_words


def state_lines(state: JobState, *, job: str) -> list[str]:
    """The whole picture. `job` is how the user names the job on the command line."""
    table = [("rows", row_words(state.rows))]
    if state.errors:
        table.append(("errors", error_words(state.errors)))
    table.append(("spent", _spent(state)))
    if state.superseded_pico:
        table.append(("", f"{text_usd(state.superseded_pico)} of it for answers that were replaced"))
    table += [("tokens", token_words(state.tokens)), ("sent", attempt_words(state.attempts, state.retries, state.refusals))]
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
    return f"{words} of {text_usd(state.cap_pico)}" if state.cap_pico is not None else words


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
        more = " --budget USD" if state.stopped_by == "budget" else ""
        yield f"go on: batchllm run {job}{more}"
