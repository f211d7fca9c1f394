"""The agreement between runs that know nothing of each other but what each has written down: a claim each, on each limit of each account.

Everybody computes the same fair parts from the same claims, but takes only what is free: a limit less what the others still hold. Who has too much lets go at
its own next word, so the sum of what is held never passes the limit, whoever dies, sleeps or comes in between; and nobody has to wait for a vote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.share.split import split, split_whole

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one run says of one limit. Rates are per minute; slots are requests in flight."""

    limit: float | None
    """The limit for all runs together, as far as this one knows."""
    most: float | None = None
    """The most that this run may have; None: all of it."""
    want: float | None = None
    """What it could use; None: as much as it can get."""
    held: float = 0.0
    """What it uses, or may use, until its next word."""
    whole: bool = False
    """Whether it is counted (slots), not measured (rates)."""

    def as_list(self) -> list[Any]:
        """For the run's file."""
        return [self.limit, self.most, self.want, self.held, self.whole]

    @staticmethod
    def of_list(values: Any) -> Claim:
        """From a run's file. Raises ValueError or TypeError for what is no claim."""
        limit, most, want, held, whole = values
        for value in (limit, most, want):
            if value is not None and not (isinstance(value, int | float) and value >= 0):
                raise ValueError("no number")
        return Claim(limit=limit, most=most, want=want, held=max(0.0, float(held)), whole=bool(whole))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a run may use of a limit from now on."""

    limit: float
    """The limit for all runs together: the lowest that any of them knows."""
    part: float
    """This run's part of it, free by now."""
    target: float
    """What its part will be as soon as the others have let go of theirs."""
    others: int
    """Other runs that use it."""


def granted(claims: Sequence[Claim], mine: int) -> Grant | None:
    """What `claims[mine]` may have; all claims on one limit, oldest run first. None when nobody knows the limit."""
    known = [claim.limit for claim in claims if claim.limit is not None]
    if not known:
        return None
    limit = min(known)
    mosts = [math.inf if claim.most is None else claim.most for claim in claims]
    wants = [math.inf if claim.want is None else claim.want for claim in claims]
    targets = split_whole(int(limit), wants, mosts) if claims[mine].whole else split(limit, wants, mosts)
    target = min(float(targets[mine]), mosts[mine])
    taken = math.fsum(claim.held for index, claim in enumerate(claims) if index != mine)
    free = math.floor(limit - taken + _ROUNDING) if claims[mine].whole else limit - taken - (limit * _ROUNDING if taken else 0.0)
    return Grant(limit=limit, part=max(0.0, min(target, free)), target=target, others=len(claims) - 1)
