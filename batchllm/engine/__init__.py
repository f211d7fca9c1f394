"""The corridor: the only place that knows all rooms.

    row -> request -> for model in chain:
               reserve (limits + money) -> journal the attempt -> encode -> send -> decode -> judge -> price -> settle
               decide: accept | again after N s | repair | next model | escalate | fail the row | stop the job
           -> commit exactly one result

`journey` is that walk; `lane` feeds one model, `attempt` sends one request, `feeder` brings the rows, `rounds`
lets them walk, `run` holds it all together.
"""

from batchllm.engine.deps import Deps, RunOptions
from batchllm.engine.run import run_job
from batchllm.engine.summary import Summary

__all__ = ["Deps", "RunOptions", "Summary", "run_job"]
