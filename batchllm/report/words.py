"""The end of a run, in a few lines for people: what came out, what it cost, where it is, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from batchllm.core.money import pico_from_usd, text_usd
from batchllm.core.nouns import INPUT_CODES
from batchllm.engine.summary import RowCounts, Summary
from batchllm.report.text import clean, columns, counted, rows, span


def money_words(spent_pico: int | None, reserved_pico: int, *, simulated: bool) -> str:
    """`$1.23 (at most $1.30)`, with `simulated` behind simulated dollars. Without a known price the sum is `unknown`."""
    words = text_usd(spent_pico) + (" simulated" if simulated else "")
    if reserved_pico:
        words += f" (at most {text_usd((spent_pico or 0) + reserved_pico)})"
    return words


def unpriced_words(spent_pico: int | None, unpriced: int) -> str:
    """What a sum of known costs leaves out."""
    if not unpriced:
        return ""
    return (
        f" ({counted(unpriced, 'request')} at an unknown price)"
        if spent_pico is None
        else f", and {counted(unpriced, 'request')} at an unknown price"
    )


def row_words(counts: RowCounts, shared: int = 0) -> str:
    """`95 ok, 5 failed, 20 pending of 120 (30 shared)`; `shared`: rows that have another one's answer."""
    words = [f"{counts.ok:,} ok"]
    if counts.failed:
        words.append(f"{counts.failed:,} failed")
    if counts.pending:
        words.append(f"{counts.pending:,} pending")
    end = "" if counts.total is None else f" of {counts.total:,}"
    return ", ".join(words) + (end or " (the input's end is not known yet)") + (f" ({shared:,} shared)" if shared else "")


def token_words(sums: Mapping[str, int]) -> str:
    """`1,234 in (200 cached, 16%), 567 out (80 reasoning)`."""
    words = f"{sums['input']:,} in"
    cached = [
        f"{sums[key]:,} {name}{_share(sums[key], sums['input'])}"
        for key, name in (("cached_input", "cached"), ("cache_write", "cache write"))
        if sums[key]
    ]
    words += f" ({', '.join(cached)})" if cached else ""
    words += f", {sums['output']:,} out"
    return words + (f" ({sums['reasoning']:,} reasoning)" if sums["reasoning"] else "")


def _share(part: int, whole: int) -> str:
    return f", {part / whole:.0%}" if whole else ""


def attempt_words(attempts: int, requests: int, retries: int, refusals: int) -> str:
    """`1,310 requests (12 retries, 3 refusals)`, or `1,310 inputs in 11 requests` where they travelled together."""
    more = [counted(retries, "retry").replace("retrys", "retries")] if retries else []
    if refusals:
        more.append(counted(refusals, "refusal"))
    sent = counted(requests, "request") if requests == attempts else f"{counted(attempts, 'input')} in {counted(requests, 'request')}"
    return sent + (f" ({', '.join(more)})" if more else "")


def error_words(errors: Mapping[str, int]) -> str:
    """`timeout 3, refused 1`."""
    return ", ".join(f"{code} {count:,}" for code, count in errors.items())


def headline(summary: Summary) -> str:
    """How it ended, in one line."""
    ends = {
        "budget": "stopped by the budget",
        "deadline": "stopped by the deadline",
        "provider": "stopped by a provider",
        "outage": "stopped by an outage",
        "store": "stopped by the store",
        "interrupt": "interrupted",
        "stop": "stopped",
    }
    if summary.stopped_by is not None:
        end = ends.get(summary.stopped_by, f"stopped by {summary.stopped_by}")
    elif summary.rows.pending or (summary.message is not None and summary.exit_code):
        end = "stopped"
    else:
        end = "finished"
    return f"{clean(summary.job)}: {end} after {span(summary.seconds)}"


def summary_lines(summary: Summary, *, job: str, simulated: bool) -> list[str]:
    """The whole summary. `job` is how the user names the job on the command line, flags such as --simulate included."""
    spent = None if summary.cost_usd is None else pico_from_usd(summary.cost_usd)
    tokens = {name: getattr(summary.tokens, name) for name in ("input", "output", "cached_input", "cache_write", "reasoning")}
    beside = "" if summary.simulated_cost_usd is None else f", and {text_usd(pico_from_usd(summary.simulated_cost_usd))} simulated"
    none_new = summary.sent_nothing and summary.attempts > 0
    table = [("rows", row_words(summary.rows, summary.shared))]
    if summary.errors:
        table.append(("errors", error_words(summary.errors)))
    table += [
        ("spent", money_words(spent, pico_from_usd(summary.reserved_usd), simulated=simulated) + unpriced_words(spent, summary.unpriced) + beside),
        ("tokens", token_words(tokens)),
        (
            "sent",
            attempt_words(summary.attempts, summary.requests, summary.retries, summary.refusals) + (", none of them by this run" if none_new else ""),
        ),
    ]
    # A run that is stopped before any row is finished writes no file.
    if summary.results is not None and (summary.stopped_by is None or summary.rows.ok or summary.rows.failed):
        table.append(("results", summary.results))
    table.append(("store", summary.store))
    lines = [headline(summary), *columns(table)]
    if summary.message is not None:
        lines.append(f"  {clean(summary.message)}")
    steps = list(next_steps(summary, job=job))
    return [*lines, *(f"  -> {step}" for step in steps)]


def wants_more_money(message: str | None) -> bool:
    """Whether it is the budget of the store's whole life that is used up: one of a day opens again, one of tokens isn't raised by dollars."""
    return message is None or "raise budget.usd to" in message or not ("opens again at" in message or "raise budget." in message)


def next_steps(summary: Summary, *, job: str) -> Iterator[str]:
    """What a person may want to do now, each with its command."""
    if summary.stopped_by == "budget" and wants_more_money(summary.message):
        yield f"go on with more money: batchllm run {job} --budget USD"
    elif summary.stopped_by is not None or summary.rows.pending:
        yield f"go on: batchllm run {job}"
    if summary.rows.failed:
        yield f"{rows(summary.rows.failed)} failed, see why: batchllm errors {job}"
        if not summary.errors or any(code not in INPUT_CODES for code in summary.errors):
            yield f"try them again: batchllm run {job} --retry-failed"
    if summary.reserved_usd:
        yield f"{text_usd(pico_from_usd(summary.reserved_usd))} is held for requests that may have been billed: batchllm settle {job}"
