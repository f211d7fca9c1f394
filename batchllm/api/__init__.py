"""The Python door: what `import batchllm` offers. Only translation lives here; the engine does the work.

`jobs` runs a job, `session` streams its results, `items` maps a list, `results` reads a store; `running` is the shell around the engine that lets all
of them work in scripts, notebooks and threads, and `rows` brings a program's own rows to it.
"""

from batchllm.api.items import map_items
from batchllm.api.jobs import Job, load, run, run_async
from batchllm.api.results import Results, results
from batchllm.api.session import Session, open_session, stream

__all__ = ["Job", "Results", "Session", "load", "map_items", "open_session", "results", "run", "run_async", "stream"]
