"""The price book on a terminal: one line a model, or all that is known of one."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from batchllm.cost import Table, Tier
from batchllm.cost.listing import Listed
from batchllm.report.text import clean

_SOON_DAYS = 120
_WIDTH = 80
_OTHERS = 6
"""Resellers that are named."""


def rate(pico: int | None) -> str:
    """USD per million tokens of a rate in pico-dollars a token: `0.10`, `12.50`, `0.0125`."""
    if pico is None:
        return "-"
    value = Decimal(pico) / 10**6
    text = f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"
    whole, _, part = text.partition(".")
    return f"{int(whole):,}.{part.ljust(2, '0')}"


def table_lines(listed: Sequence[Listed], *, today: date) -> Iterator[str]:
    """One line a model; `today` decides which last days are near."""
    wide = max([len("model"), *(len(one.model) for one in listed)])
    yield f"{'model':<{wide}}  {'input':>6} {'cached':>6} {'write':>6} {'output':>6}  {'batch in/out':>13}"
    provider = None
    for one in listed:
        if one.provider != provider:
            provider = one.provider
            yield f"[{provider}]"
        yield f"{one.model:<{wide}}  {_cells(one)}{_marks(one, today)}".rstrip()


def _cells(one: Listed) -> str:
    if one.table is None:
        return "not by input and output tokens alone"
    base = one.table[0]
    batch = one.others.get("batch")
    pair = f"{rate(batch[0].input)} / {rate(batch[0].output)}" if batch else "-"
    return f"{rate(base.input):>6} {rate(base.cached_input):>6} {rate(base.cache_write):>6} {rate(base.output):>6}  {pair:>13}"


def _marks(one: Listed, today: date) -> str:
    marks = [f" >{tier.above_input_tokens // 1000}k x{_times(tier.input, one.table[0].input)}" for tier in one.table[1:2]] if one.table else []
    if one.later:
        moment = datetime.fromtimestamp(one.later[0][0], UTC)
        hourly = len(one.later) > 1 and one.later[1][0] - one.later[0][0] < 86_400
        marks.append(" peak hours" if hourly else f" till {moment - timedelta(days=1):%Y-%m-%d}")
    if one.last_day is not None and (one.last_day - today).days < _SOON_DAYS:
        marks.append(f" {'ended' if one.last_day < today else 'ends'} {one.last_day}")
    elif one.deprecated:
        marks.append(" deprecated")
    return ";".join(marks)


def _times(more: int, base: int) -> str:
    return f"{Decimal(more) / base:.3g}" if base else "?"


def model_lines(one: Listed, *, also: Sequence[str], today: date) -> Iterator[str]:
    """All that is known of one model."""
    name = f" ({clean(one.name)})" if one.name and one.name.lower() != one.model.lower() else ""
    yield f"{one.model}{name}, {one.provider}; USD per million tokens"
    if one.table is None:
        yield "  Its bill does not follow from input and output tokens alone (searches, audio, images...), or its price is not known."
        yield "  Under a budget such a model needs a `price` of your own in the spec."
    else:
        yield f"  {'':<10} {'input':>8} {'cached':>8} {'write':>8} {'write 1h':>8} {'output':>8}"
        for word, table in {"standard": one.table, **one.others}.items():
            yield from _table(word, table)
        cliffs = [tier.above_input_tokens for tier in one.table[1:]]
        if cliffs:
            yield f"  When the whole input exceeds {cliffs[0]:,} tokens, all of the request's tokens cost the higher rates."
        for moment, table in one.later[:4]:
            when = datetime.fromtimestamp(moment, UTC)
            yield f"  from {when:%Y-%m-%d %H:%M} UTC: input {rate(table[0].input)}, output {rate(table[0].output)}"
    window, most = one.facts.context_window, one.facts.max_output_tokens
    facts = [f"window {window:,} tokens"] if window else []
    facts += [f"answers up to {most:,} tokens"] if most else []
    if facts:
        yield f"  {'; '.join(facts)}"
    if one.last_day is not None:
        days = (one.last_day - today).days
        yield f"  SHUT DOWN on {one.last_day}" if days < 0 else f"  Will be shut down on {one.last_day}, in {days} days: plan its successor."
    elif one.deprecated:
        yield "  Deprecated by its provider: it still answers."
    if one.note:
        yield from textwrap.wrap(f"The book notes: {clean(one.note, 600)}", _WIDTH - 2, initial_indent="  ", subsequent_indent="  ")
    if also:
        more = f" and {len(also) - _OTHERS} more" if len(also) > _OTHERS else ""
        yield f"  Also sold by {', '.join(also[:_OTHERS])}{more} (--provider NAME)."


def _table(word: str, table: Table) -> Iterator[str]:
    for tier in table:
        label = word if tier.above_input_tokens < 0 else f" >{tier.above_input_tokens // 1000}k"
        yield f"  {label:<10} " + " ".join(f"{rate(value):>8}" for value in _rates(tier).values())


def _rates(tier: Tier) -> dict[str, int]:
    return {
        "input": tier.input,
        "cached_input": tier.cached_input,
        "cache_write": tier.cache_write,
        "cache_write_1h": tier.cache_write_1h,
        "output": tier.output,
    }


def as_dict(one: Listed) -> dict[str, Any]:
    """For `--json`: rates in USD per million tokens."""
    return {
        "provider": one.provider,
        "model": one.model,
        "prices": None if one.table is None else _tiers(one.table),
        "other_prices": {word: _tiers(table) for word, table in one.others.items()},
        "changes": [{"from": datetime.fromtimestamp(moment, UTC).isoformat(), "prices": _tiers(table)} for moment, table in one.later],
        "context_window": one.facts.context_window,
        "max_output_tokens": one.facts.max_output_tokens,
        "shut_down": one.last_day.isoformat() if one.last_day is not None else None,
        "deprecated": one.deprecated,
        "note": one.note,
    }


def _tiers(table: Table) -> list[Mapping[str, Any]]:
    return [
        {"above_input_tokens": max(tier.above_input_tokens, 0), **{key: float(Decimal(value) / 10**6) for key, value in _rates(tier).items()}}
        for tier in table
    ]
