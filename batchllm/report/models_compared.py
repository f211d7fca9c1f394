"""Models compared: the table of costs, real answers side by side, and both as one HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from statistics import mean
from typing import Any, get_args

from batchllm.core import json
from batchllm.core.money import PICO_PER_USD, text_usd, usd_from_pico
from batchllm.core.nouns import Result
from batchllm.engine.models_compared import AT, BANDS_AS_OF, Compared, Comparison, Quality
from batchllm.report.text import clean, columns, rows

_SHOWN_ROWS = 5
_SHOWN_CHARACTERS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One row's answers, by model."""

    key: str
    by_model: Mapping[str, Result]


def side_by_side(results: Sequence[Result], names: Sequence[str]) -> list[Answered]:
    """Live results, put together again by row."""
    found: dict[str, dict[str, Result]] = {}
    for result in results:
        key, _, name = (result.custom_id or "").rpartition(AT)
        if name in names:
            found.setdefault(key, {})[name] = result
    return [Answered(key=key, by_model=by_model) for key, by_model in found.items()]


def compared_lines(found: Comparison, answered: Sequence[Answered]) -> Iterator[str]:
    """For a terminal."""
    sample = f", counted on {found.counted:,} of them" if found.counted < found.rows else ""
    left_out = f"; {rows(found.skipped)} can't be asked" if found.skipped else ""
    yield f"{clean(found.job)}: {rows(found.rows)}{sample}{left_out}"
    head = ("model", "quality", "tokens in", "out", "a row", "all rows", "at most", "batch", "all cached", "answers")
    yield from columns([head, *(_cells(one, found) for one in found.models)], right=frozenset(range(2, 9)))
    for one in found.models:
        if one.tiers_pico:
            yield f"  {one.name} by service tier: {', '.join(f'{word} {text_usd(cost)}' for word, cost in one.tiers_pico.items())}"
        if one.expected_pico is None:
            yield f"  the price of {clean(one.model)} is not known: give the model a `price` in the job (batchllm prices lists those that are)"
    yield ""
    best = found.cheapest()
    if best is not None:
        yield f"  cheapest: {best.name} ({text_usd(best.expected_pico)})"
        for quality in get_args(Quality):
            of_band = found.cheapest(quality)
            if of_band is not None and len({one.quality for one in found.models}) > 1:
                yield f"    {quality}: {of_band.name} ({text_usd(of_band.expected_pico)})"
    yield f"  (quality by price bands of {BANDS_AS_OF}; the length of answers is {_basis_words(found)})"
    if answered:
        yield from _answers(found, answered)


def _basis_words(found: Comparison) -> str:
    words = {"assumed": "a guess", "learnt": "learnt from the job's store", "simulated": "the simulator's"}
    return " or ".join(dict.fromkeys(words[one.basis] for one in found.models))


def _cells(one: Compared, found: Comparison) -> tuple[str, ...]:
    count = max(found.rows, 1)
    return (
        one.name,
        one.quality or "?",
        f"{one.input_tokens:,}",
        f"{one.output_tokens:,}",
        text_usd(None if one.expected_pico is None else one.expected_pico // count),
        text_usd(one.expected_pico),
        text_usd(one.worst_pico),
        "-" if one.batch_pico is None else text_usd(one.batch_pico),
        "-" if one.cached_pico is None else text_usd(one.cached_pico),
        f"~{one.output_tokens / count:.0f} tokens, {one.basis}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What one model did on the live rows."""

    rows: int
    ok: int
    cost_usd: float | None
    """Of a row."""
    latency_seconds: float | None
    output_tokens: float | None


def live_figures(name: str, answered: Sequence[Answered]) -> Live:
    """Means over a model's live rows."""
    results = [one.by_model[name] for one in answered if name in one.by_model]
    good = [result for result in results if result.ok]
    costs = [result.cost_usd for result in results]
    known = [cost for cost in costs if cost is not None]
    seconds = [result.latency_seconds for result in good if result.latency_seconds is not None]
    lengths = [result.usage.output_tokens for result in good if result.usage is not None]
    return Live(
        rows=len(results),
        ok=len(good),
        cost_usd=mean(known) if known else None,
        latency_seconds=mean(seconds) if seconds else None,
        output_tokens=mean(lengths) if lengths else None,
    )


def _live_cells(name: str, answered: Sequence[Answered]) -> tuple[str, ...]:
    live = live_figures(name, answered)
    return (
        name,
        f"{live.ok:,} of {live.rows:,}",
        _usd_words(live.cost_usd),
        "" if live.latency_seconds is None else f"{live.latency_seconds:.2f} s",
        "" if live.output_tokens is None else f"{live.output_tokens:.0f}",
    )


def _usd_words(dollars: float | None) -> str:
    return text_usd(None if dollars is None else round(dollars * PICO_PER_USD))


def _answers(found: Comparison, answered: Sequence[Answered]) -> Iterator[str]:
    yield ""
    head = ("answered", "ok", "a row", "latency", "tokens out")
    yield from columns([head, *(_live_cells(one.name, answered) for one in found.models)], right=frozenset({1, 2, 3, 4}))
    for one in answered[:_SHOWN_ROWS]:
        yield ""
        yield f"  {clean(one.key, 60)}"
        told = [(model.name, clean(_text(one.by_model[model.name]), _SHOWN_CHARACTERS)) for model in found.models if model.name in one.by_model]
        yield from columns(told, indent="    ")
    if len(answered) > _SHOWN_ROWS:
        yield f"  ... and {rows(len(answered) - _SHOWN_ROWS)} more (--html FILE shows all)"


def _text(result: Result) -> str:
    if not result.ok:
        return f"[{result.error.code}] {result.error.message}" if result.error is not None else "[failed]"
    value = result.parsed if result.parsed is not None else result.output
    return value if isinstance(value, str) else json.text(value)


def as_dict(found: Comparison, answered: Sequence[Answered]) -> dict[str, Any]:
    """For `--json`."""
    best = found.cheapest()
    return {
        "job": found.job,
        "rows": found.rows,
        "counted_rows": found.counted,
        "skipped_rows": found.skipped,
        "models": {one.name: _model(one, found, answered) for one in found.models},
        "cheapest": best.name if best is not None else None,
        "cheapest_by_quality": {quality: one.name for quality in get_args(Quality) if (one := found.cheapest(quality)) is not None},
        "bands_as_of": BANDS_AS_OF,
    }


def _model(one: Compared, found: Comparison, answered: Sequence[Answered]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "provider": one.provider,
        "model": one.model,
        "quality": one.quality,
        "tokens": {"input": one.input_tokens, "output_expected": one.output_tokens},
        "cost_usd": {
            "row": _usd(None if one.expected_pico is None else one.expected_pico // max(found.rows, 1)),
            "expected": _usd(one.expected_pico),
            "worst": _usd(one.worst_pico),
            "batch": _usd(one.batch_pico),
            "all_cached": _usd(one.cached_pico),
            "tiers": {word: usd_from_pico(cost) for word, cost in one.tiers_pico.items()},
        },
        "output_basis": one.basis,
        "counter": one.counter,
    }
    if answered:
        live = live_figures(one.name, answered)
        told["live"] = {
            "rows": live.rows,
            "ok": live.ok,
            "cost_usd_row": live.cost_usd,
            "latency_seconds": live.latency_seconds,
            "output_tokens": live.output_tokens,
        }
        told["answers"] = {row.key: _text(row.by_model[one.name]) for row in answered if one.name in row.by_model}
    return told


def _usd(pico: int | None) -> float | None:
    return None if pico is None else usd_from_pico(pico)


_STYLE = """body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:90rem;padding:0 1rem;color:#1c1c1c;background:#fff}
table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{border:1px solid #ccc;padding:.4rem .6rem;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td.a{white-space:pre-wrap;overflow-wrap:anywhere}small{color:#555}.bad{color:#a00}
@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}th,td{border-color:#444}small{color:#aaa}.bad{color:#f77}}"""


def html_page(found: Comparison, answered: Sequence[Answered]) -> str:
    """One file with all of it; nothing is loaded from anywhere, and answers are shown as text, whatever is in them."""
    names = [one.name for one in found.models]
    head = ("model", "quality", "tokens in", "out", "a row", "all rows", "at most", "batch", "all cached", "answers")
    table = "".join(
        "<tr>" + "".join(f"<td{'' if at in (0, 1, 9) else ' class=n'}>{escape(cell)}</td>" for at, cell in enumerate(_cells(one, found))) + "</tr>"
        for one in found.models
    )
    body = [
        f"<h1>{escape(found.job)}: {len(names)} models, {escape(rows(found.rows))}</h1>",
        f"<table><tr>{''.join(f'<th>{word}</th>' for word in head)}</tr>{table}</table>",
    ]
    if answered:
        live = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _live_cells(name, answered)) + "</tr>" for name in names)
        body.append(f"<table><tr><th>model</th><th>ok</th><th>a row</th><th>latency</th><th>tokens out</th></tr>{live}</table>")
        lines = "".join(f"<tr><td>{escape(one.key)}</td>{''.join(_cell(one.by_model.get(name)) for name in names)}</tr>" for one in answered)
        body.append(f"<table><tr><th>row</th>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>{lines}</table>")
    body.append(f"<p><small>Quality by price bands of {BANDS_AS_OF}. The length of answers is {escape(_basis_words(found))}.</small></p>")
    title = escape(f"{found.job}: models compared")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _cell(result: Result | None) -> str:
    if result is None:
        return "<td></td>"
    told = []
    if result.latency_seconds is not None:
        told.append(f"{result.latency_seconds:.2f} s")
    if result.cost_usd is not None:
        told.append(_usd_words(result.cost_usd))
    return f'<td class="a{"" if result.ok else " bad"}">{escape(_text(result))}<br><small>{escape(", ".join(told))}</small></td>'
