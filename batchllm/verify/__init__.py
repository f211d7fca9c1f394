"""The deterministic fault simulation: the real engine in virtual time, with a provider that misbehaves and processes that die, checked against the provider's own log.

    seed -> plan (what will happen) -> world (it happens) -> watch (at every request) and judge (after every life, and at the end) -> findings

A seed replays exactly, so a finding is a bug report that runs.
"""

from batchllm.verify.draw import plan_of
from batchllm.verify.one import Verdict, verify
from batchllm.verify.plan import Plan

__all__ = ["Plan", "Verdict", "plan_of", "verify"]
