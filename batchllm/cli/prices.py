"""`batchllm prices`: what models cost, by the price book and by a file of one's own."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchllm.cli._group import Fallback

if TYPE_CHECKING:
    from batchllm.cost.listing import Listed

_EPILOG = """\b
Examples:
  batchllm prices
  batchllm prices gpt-6-luna
  batchllm prices claude --json | jq '.models[].model'
  batchllm prices --provider groq
  batchllm prices update

\b
Prices of your own: a file with lines such as
  my-model: {input: 0.10, output: 0.50, cached_input: 0.01}
for --file, and for the key `prices` of a job; or `price` at a model."""


@click.group(cls=Fallback, epilog=_EPILOG)
def command() -> None:
    """What models cost: standard, cached, batch and tier prices in USD per million tokens, cliffs for long prompts, last days.

    Without MODEL the documented models; MODEL is an id or a part of one.
    """


@command.command("show")
@click.argument("model", required=False)
@click.option("--provider", metavar="NAME", help="Only this provider of the book, with all its models.")
@click.option("--file", "own_file", type=click.Path(path_type=Path), help="Prices of your own, which win over the book.")
@click.option("--at", metavar="DATE", help="Prices of another day, e.g. 2026-12-01.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def show(model: str | None, provider: str | None, own_file: Path | None, at: str | None, as_json: bool) -> None:
    """Prices of all documented models, or of one."""
    from batchllm.core import json
    from batchllm.cost.updates import current
    from batchllm.report.prices import as_dict, model_lines, table_lines

    utc = time.time() if at is None else _moment(at)
    own = _own(own_file)
    exact, listed = _wanted(model, provider, utc)
    listed = _with_own(own, exact or listed, model=model, provider=provider, exact=bool(exact))
    if not listed:
        _unknown(model, provider)
    exact = listed if exact or (len(listed) == 1 and listed[0].model == model) else []
    today = datetime.fromtimestamp(utc, UTC).date()
    source = f"{current().version}; own prices from {own_file}" if own_file is not None else current().version
    if as_json:
        click.echo(json.text({"date": today.isoformat(), "source": source, "models": [as_dict(one) for one in listed]}))
        return
    if exact:
        lines = list(model_lines(exact[0], also=[one.provider for one in exact[1:]], today=today))
    else:
        lines = [f"Prices on {today}, USD per million tokens:", *table_lines(listed, today=today)]
    click.echo("\n".join([*lines, f"Source: {source}; prices of {today}."]))


@command.command(
    "update",
    epilog="""\b
Example:
  batchllm prices update

Nothing is ever fetched without being asked for. Delete the file that it names to go back to the installed package's data.""",
)
@click.option("--url", metavar="URL", help="Another address of the same data (a mirror).")
def update(url: str | None) -> None:
    """Fetch the newest price data, for this version of the price book's package."""
    from batchllm.cli._fetch import fetch
    from batchllm.core.errors import BatchLLMError
    from batchllm.cost import updates

    place = url or updates.url()
    click.echo(f"fetching {place}", err=True)
    try:
        models = updates.keep(fetch(place), now=datetime.now(UTC))
    except BatchLLMError as error:
        raise BatchLLMError(f"prices were not updated; {updates.current().version} stays in use: {error}") from None
    except ValueError as error:
        raise BatchLLMError(f"prices were not updated; {updates.current().version} stays in use: {place}: {error}") from None
    except OSError as error:
        raise BatchLLMError(f"{updates.cache_file()}: can't be written: {error.strerror or error}; BATCHLLM_CACHE names another folder") from None
    click.echo(f"{models:,} models, kept in {updates.cache_file()}", err=True)


def _moment(text: str) -> float:
    from batchllm.core.errors import Problem, SpecError

    try:
        return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC).timestamp()
    except ValueError:
        raise SpecError(Problem(file="--at", message=f"expected a day such as 2026-12-01, got {text!r}")) from None


def _wanted(model: str | None, provider: str | None, utc: float) -> tuple[list[Listed], list[Listed]]:
    """(entries of exactly this model, entries that it may mean)."""
    from batchllm.core.errors import Problem, SpecError
    from batchllm.cost import listing

    provider = {"gemini": "google"}.get(provider or "", provider)
    if provider is not None and provider not in listing.providers():
        raise SpecError(Problem(file="--provider", message=f"the book has no provider {provider!r}; it has {', '.join(listing.providers())}"))
    if model is None:
        return [], (listing.usual(utc=utc) if provider is None else listing.containing("", provider=provider, utc=utc))
    return listing.find(model, provider=provider, utc=utc), listing.containing(model, provider=provider, utc=utc)


def _unknown(model: str | None, provider: str | None) -> None:
    from batchllm.core.errors import SpecError
    from batchllm.cost import listing

    similar = listing.similar(model or "", provider={"gemini": "google"}.get(provider or "", provider))
    hint = f"did you mean {', '.join(similar)}?" if similar else "`batchllm prices` lists the usual ones."
    where = f" at {provider}" if provider else ""
    raise SpecError(
        f"the price of {model!r}{where} is not in the book; {hint} A price of your own goes into the job: price: {{input: 0.10, output: 0.50}}"
    )


def _own(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from batchllm.spec.prices import load_prices

    return load_prices(path)


def _with_own(own: dict[str, Any], listed: list[Listed], *, model: str | None, provider: str | None, exact: bool) -> list[Listed]:
    """Own prices in the place of the book's, those of models that the book doesn't have first."""
    from batchllm.cost.facts import ModelFacts
    from batchllm.cost.listing import Listed

    if provider is not None:
        return listed
    tables = {name: _tables(price) for name, price in own.items()}
    shown = [
        replace(one, table=tables[one.model][0], others=tables[one.model][1], later=(), note=None) if one.model in tables else one for one in listed
    ]
    known = {one.model for one in listed}
    new = [
        Listed(
            provider="own",
            model=name,
            name=None,
            table=table,
            others=others,
            later=(),
            facts=ModelFacts(),
            last_day=None,
            deprecated=False,
            note=None,
        )
        for name, (table, others) in tables.items()
        if name not in known and not exact and (model is None or model in name)
    ]
    return [*new, *shown]


def _tables(price: Any) -> tuple[Any, dict[str, Any]]:
    from batchllm.cost import from_spec

    table = from_spec(input=price.input, output=price.output, cached_input=price.cached_input, cache_write=price.cache_write).tiers
    if price.batch_input is None or price.batch_output is None:
        return table, {}
    return table, {"batch": from_spec(input=price.batch_input, output=price.batch_output).tiers}
