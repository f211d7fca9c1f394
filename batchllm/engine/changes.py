"""What changed since the last run: the fingerprint pass over the whole input, and what to do about answers whose request is another one now (guarantee 8).

The trap is a run that dies half-way: until the input's end the old record of its files must not stand, or the next run would look at nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.to_thread

from batchllm.core import json
from batchllm.core.errors import SpecError
from batchllm.core.events import RowsCompared
from batchllm.engine.answers import Answers
from batchllm.engine.compare import Comparison, compare
from batchllm.engine.deps import Deps
from batchllm.engine.source import Source
from batchllm.spec import JobSpec
from batchllm.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What a run finds at its start."""

    fresh: bool
    """Whether the store has no rows yet."""
    record: str | None
    """Path, size and time of all input files; None for a stream."""
    spec_digest: str
    comparison: Comparison | None = None
    """None: nothing can have changed."""
    rerun: bool = False
    """Whether answers to what is now another request are asked for anew."""


async def changes_of(spec: JobSpec, source: Source, store: Store, answers: Answers, deps: Deps) -> Changes:
    """Compares, if there is something to compare. Raises SpecError where the user must first say what to do."""
    fresh = not store.has_rows()
    job = store.job()
    prompt, output = spec.prompt, spec.output
    # With what files of the spec hold: a prompt or a schema may change while the spec's own text doesn't.
    texts = [message.model_dump() for message in prompt.messages] if prompt is not None else None
    below = [spec.extended_text] if spec.extends is not None else []
    digest = json.digest([spec.text, spec.overrides_text, texts, output.json_schema, *below])
    record = None if source.is_stream else source.record()
    same = Changes(fresh=fresh, record=record, spec_digest=digest)
    if fresh:
        # Nothing was answered yet, so nothing can have changed until the files or the spec do.
        store.transaction(lambda connection: connection.execute("UPDATE job SET inputs = ?, spec_digest = ?", (record, digest)))
        return same
    if job["inputs"] == record and job["spec_digest"] == digest:
        return same
    if source.is_stream:
        _forget(store)
        return same
    connection, deployments = store.connection, store.deployments()
    if deps.inline:
        found = compare(connection, spec, source, deployments, wanted=answers.wanted)
    else:
        off = threading.Event()
        found = await _to_its_end(lambda: compare(connection, spec, source, deployments, wanted=answers.wanted, is_off=off.is_set), off)
    deps.listener(found.counts)
    word = spec.on_change
    if found.changed_ok_rows:
        if word == "ask":
            word = deps.ask_change(found.counts) if deps.ask_change is not None else "refuse"  # type: ignore[assignment]  # whoever is asked answers with another of the words
        if word == "refuse":
            raise SpecError(_changed_words(found.counts, found.changed_ok_rows))
    _forget(store)
    return Changes(fresh=False, record=record, spec_digest=digest, comparison=found, rerun=bool(found.changed_ok_rows) and word == "rerun")


def _forget(store: Store) -> None:
    """From the first answer to something else on, who goes back to what was asked before has changed the job again, whether or not this run comes to its end."""
    store.transaction(lambda connection: connection.execute("UPDATE job SET inputs = NULL"))


async def _to_its_end(work: Callable[[], Comparison], off: threading.Event) -> Comparison:
    """Works in a thread. A cancellation sets `off` and waits for the thread: closing the store under it would take the whole process down."""
    task = asyncio.ensure_future(anyio.to_thread.run_sync(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        off.set()
        with anyio.CancelScope(shield=True):
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
        task.exception()
        raise


def _changed_words(counts: RowsCompared, changed_ok: int) -> str:
    return (
        f"the job changed: {'1 answered row now asks' if changed_ok == 1 else f'{changed_ok:,} answered rows now ask'} something else ({counts.new} new, {counts.changed} changed, {counts.removed} removed, "
        f"{counts.unchanged} unchanged rows). Nothing was sent. Say what to do with their answers: --on-change rerun (ask again and pay again; "
        "the old answers move to `history`) or --on-change keep"
    )
