"""The end of a run: the results file, and the sums that its summary tells, all of them from the store."""

from __future__ import annotations

import contextlib
from pathlib import Path

from batchllm.core.errors import SpecError
from batchllm.core.money import usd_from_pico
from batchllm.engine.deps import RunOptions
from batchllm.engine.outcomes import Outcomes
from batchllm.engine.source import Source
from batchllm.engine.summary import RowCounts, Summary, Tokens
from batchllm.export.results import write_results
from batchllm.spec import JobSpec
from batchllm.store import Store
from batchllm.store.read import StoreReader, counts, error_codes, last_run_that_sent, money, row_states
from batchllm.store.telemetry import read_telemetry
from batchllm.store.twins import shared_rows


def write_all(store: Path, results: Path, spec: JobSpec) -> SpecError | None:
    """Writes the results file. Returns why the answers can't be written in its form; raises StoreError."""
    # Closed whatever happens: a statement that is left open keeps the store's last checkpoint waiting.
    with StoreReader(store) as reader, contextlib.closing(reader.results()) as lines:
        try:
            write_results(lines, results, columns=spec.output.keep)
        except SpecError as error:
            return error
    return None


def summary_of(
    spec: JobSpec,
    options: RunOptions,
    source: Source,
    store: Store,
    outcomes: Outcomes,
    results: Path | None,
    *,
    seconds: float,
    exit_code: int,
    stopped_by: str | None,
    message: str | None,
) -> Summary:
    """What `run --json` prints."""
    connection, tally = store.connection, outcomes.tally
    sums, numbers = money(connection), counts(connection)
    total = tally.total
    sampled = options.sample_count is not None or options.sample_fraction is not None
    # Rows of a stream are added to those of earlier ones: the store knows them all, but not (yet) those of a stream that was cut.
    if not source.limited and not sampled and (total is None) != source.is_stream:
        (total,) = connection.execute("SELECT total_rows FROM job").fetchone()
    states = row_states(connection, source.limit)
    ok, failed = (tally.ok, tally.failed) if sampled or (source.is_stream and source.limited) else (states.get(1, 0), states.get(2, 0))
    return Summary(
        job=spec.name,
        store=str(store.path),
        results=str(results) if results is not None else None,
        rows=RowCounts(total=total, ok=ok, failed=failed, pending=None if total is None else total - ok - failed),
        cost_usd=usd_from_pico(sums["cost_pico"]) if sums["cost_pico"] is not None else None if numbers["attempts"] else 0.0,
        reserved_usd=usd_from_pico(sums["reserved_pico"]),
        simulated=sums["simulated"],
        simulated_cost_usd=usd_from_pico(sums["simulated_beside"]) if sums["simulated_beside"] is not None else None,
        tokens=Tokens(**{name: numbers[name] for name in ("input", "output", "cached_input", "cache_write", "reasoning")}),
        attempts=numbers["attempts"],
        requests=numbers["requests"],
        sent_nothing=last_run_that_sent(connection) != store.run,
        retries=numbers["retries"],
        refusals=numbers["refusals"],
        seconds=seconds,
        stopped_by=stopped_by,
        errors=error_codes(connection),
        shared=shared_rows(connection),
        telemetry=read_telemetry(connection, simulated=sums["simulated"]).as_dict(),
        exit_code=exit_code,
        unpriced=sums["unpriced"],
        message=message,
    )
