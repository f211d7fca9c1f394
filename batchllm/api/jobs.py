"""Jobs: built or read, then run from start to end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from batchllm.api.rows import AnyRows
from batchllm.api.running import Flags, blocking, go, order
from batchllm.api.tools import toolkit_of, with_declarations
from batchllm.engine import Summary
from batchllm.spec import JobSpec, build
from batchllm.spec import load as load_spec


def load(path: str | Path, set: Mapping[str, Any] | None = None) -> JobSpec:  # noqa: A002 - contract 4 names it
    """Reads a spec file (.yaml, .json, .toml) into a JobSpec: typed and immutable. `set` changes keys, dotted as in `--set`.

        job = batchllm.load("reviews.yaml", set={"budget.usd": 5})
        print(job.models["mini"].limits.rpm)

    Raises SpecError with every problem at once, each with its line and column.
    """
    return load_spec(path, set=set)


def Job(**keys: Any) -> JobSpec:  # noqa: N802 - it reads as the type that it gives
    """A job built in code, with the keys of a spec file. Raises SpecError with every problem at once.

        job = batchllm.Job(
            name="reviews",
            input="data/reviews.jsonl",
            prompt="Label as positive or negative: {{ text }}",
            models={"mini": {"provider": "openai", "model": "gpt-6-luna", "limits": {"rpm": 500}}},
            budget={"usd": 2},
        )

    `tools`: functions that the model may call, or `batchllm.Tools(...)` of them; all else is as in a spec.

    Relative paths are relative to the current folder; store and results are `<name>.db` and `<name>.results.jsonl` there.
    """
    given = keys.pop("tools", None)
    if given is None:
        return build(keys)
    toolkit = toolkit_of(given)
    request = keys.get("request") or {}
    if isinstance(request, Mapping):
        keys["request"] = {**request, "tools": with_declarations(request.get("tools"), toolkit)}
    return build(keys, toolkit=toolkit)


def run(job: JobSpec | str | Path, *, rows: AnyRows | None = None, **flags: Unpack[Flags]) -> Summary:
    """Runs a job, or resumes it, and returns its summary: always safe to repeat.

        summary = batchllm.run("reviews.yaml", limit=100)
        print(summary.exit_code, summary.rows.ok, summary.cost_usd)

    `job` is a JobSpec or the path of a spec; `rows` (any iterable or async iterable of dicts) stand in for the spec's input. Flags: `limit`, `sample`,
    `retry_failed`, `simulate`, `if_running`, `listener`, as on the command line. Works in scripts, threads and inside a running loop (a notebook), where
    it uses a thread of its own. Rows that fail are data, and so is a run that stops early: see `exit_code`, `stopped_by` and `message`. Ctrl-C finishes what
    is in flight and returns exit code 130. Raises SpecError (nothing was sent), StoreError, and what `rows` itself raises.
    """
    return blocking(order(job, rows, **flags))


async def run_async(job: JobSpec | str | Path, *, rows: AnyRows | None = None, **flags: Unpack[Flags]) -> Summary:
    """The same in the running loop.

        summary = await batchllm.run_async(job)

    Cancelling it leaves the store resumable: what was in flight counts as possibly billed, everything that was answered stands.
    """
    return await go(order(job, rows, **flags))


__all__ = ["Job", "load", "run", "run_async"]
