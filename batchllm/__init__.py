"""batchllm: ten thousand to ten million prompts overnight - every row answered once, under the cap, with a ledger that agrees with the provider's bill.

    import batchllm

    summary = batchllm.run("reviews.yaml")                                     # run or resume a job
    results = batchllm.map(["one", "two"], model="openai:gpt-6-luna", budget_usd=2)

Names are loaded when they are first used, so that the import itself is light and has no side effect. `open` and `map` mean batchllm's own: use them as
`batchllm.open`, not by a star import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchllm.api.frames import map_frame
    from batchllm.api.items import map_items as map  # noqa: A004 - contract 4 names it
    from batchllm.api.jobs import Job, load, run, run_async
    from batchllm.api.results import Results, results
    from batchllm.api.session import Session, stream
    from batchllm.api.session import open_session as open  # noqa: A004 - contract 4 names it
    from batchllm.api.tools import Tools
    from batchllm.core.errors import BatchLLMError, SpecError, Stopped, StoreError
    from batchllm.core.nouns import Result
    from batchllm.engine.summary import Summary
    from batchllm.spec.job import JobSpec

__version__ = "0.1.0"

_PLACES = {
    "BatchLLMError": ("batchllm.core.errors", "BatchLLMError"),
    "Job": ("batchllm.api.jobs", "Job"),
    "JobSpec": ("batchllm.spec.job", "JobSpec"),
    "Result": ("batchllm.core.nouns", "Result"),
    "Results": ("batchllm.api.results", "Results"),
    "Session": ("batchllm.api.session", "Session"),
    "SpecError": ("batchllm.core.errors", "SpecError"),
    "Stopped": ("batchllm.core.errors", "Stopped"),
    "StoreError": ("batchllm.core.errors", "StoreError"),
    "Summary": ("batchllm.engine.summary", "Summary"),
    "Tools": ("batchllm.api.tools", "Tools"),
    "load": ("batchllm.api.jobs", "load"),
    "map": ("batchllm.api.items", "map_items"),
    "map_frame": ("batchllm.api.frames", "map_frame"),
    "open": ("batchllm.api.session", "open_session"),
    "results": ("batchllm.api.results", "results"),
    "run": ("batchllm.api.jobs", "run"),
    "run_async": ("batchllm.api.jobs", "run_async"),
    "stream": ("batchllm.api.session", "stream"),
}

__all__ = [
    "BatchLLMError",
    "Job",
    "JobSpec",
    "Result",
    "Results",
    "Session",
    "SpecError",
    "Stopped",
    "StoreError",
    "Summary",
    "Tools",
    "__version__",
    "load",
    "map",
    "map_frame",
    "open",
    "results",
    "run",
    "run_async",
    "stream",
]


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(place[0]), place[1])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})
