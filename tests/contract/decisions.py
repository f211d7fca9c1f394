"""What the engine does about a fault that comes for the first time, in one word."""

from __future__ import annotations

import random

from batchllm.core.nouns import Fault
from batchllm.retry.decide import Again, Down, Fail, ModelOut, Refused, RetryPolicy, Tally, decide


def first(fault: Fault) -> str:
    match decide(fault, Tally(failures=1, same_kind=1, identical=1), RetryPolicy(), random.Random(1)):
        case Again():
            return "again"
        case Refused(slower=True):
            return "slower"
        case Refused(until_window=True):
            return "window"
        case Refused():
            return "refused"
        case Down():
            return "down"
        case Fail(error=error):
            return f"fail {error.code}"
        case ModelOut():
            return "out"
