"""What to do about an answer that came and isn't good enough: invalid, or cut by the token cap. A pure function, like `decide`.

The trap: each further attempt is paid for like the first, so their number is small and fixed, per model; `max_attempts` bounds them over all runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from batchllm.core.nouns import Code, RowError
from batchllm.retry.decide import Fail, Improve

LONGER = 4
"""Times that an output cap is doubled where the model's documented maximum isn't known."""
QUALITY = frozenset({Code.INVALID_OUTPUT, Code.REFUSED, Code.TRUNCATED, Code.TOOL_TURNS})
"""Failures that a stronger model may not have: what escalates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImprovePolicy:
    """The numbers of `output` in the spec."""

    retries: int = 0
    """Further attempts after an invalid answer, on each model."""
    repair: bool = True
    longer: bool = False
    """`on_length: retry`."""


def improve(error: RowError, *, invalid: int, failures: int, policy: ImprovePolicy, max_attempts: int) -> Improve | Fail:
    """`invalid`: invalid answers of this model to this row in this walk, `failures`: its counting attempts over all runs, both with the present one."""
    if failures < max_attempts:
        if error.code is Code.INVALID_OUTPUT and invalid <= policy.retries:
            return Improve(how="repair" if policy.repair else "again", error=error)
        if error.code is Code.TRUNCATED and policy.longer:
            return Improve(how="longer", error=error)
    return Fail(error=error)
