"""The order in which a row asks its models: its chain, then those that were only down once more; or the ladder, once an answer wasn't good enough.

A chain is for models that fail, a ladder (`output.on_invalid.escalate`) for models that answer badly: the next of a chain may well be the same model at another host,
so with a ladder it isn't asked after a bad answer. A prompt that is too long goes on to larger windows only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from batchllm.core.nouns import Code
from batchllm.retry.improve import QUALITY

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane


class Path:
    """One row's way; made once per row."""

    __slots__ = ("_asked", "_ladder", "_skipped", "_todo", "kind", "patient")

    def __init__(self, chain: Sequence[Lane], ladder: Sequence[Lane]) -> None:
        self._todo = list(chain)
        self._ladder = ladder
        self._asked: list[Lane] = []
        self._skipped: list[Lane] = []
        self.patient = False
        """Whether what comes now was down before: it is waited for."""
        self.kind: Literal["fallback", "escalation"] = "fallback"
        """Why the next model is asked."""

    def next(self) -> Lane | None:
        """The model to ask now; None at the end."""
        if not self._todo and not self.patient:
            self.patient = True
            self._todo, self._skipped = self._skipped, []
        if not self._todo:
            return None
        lane = self._todo.pop(0)
        self._asked.append(lane)
        return lane

    @property
    def ahead(self) -> Sequence[Lane]:
        """What comes after the present model, if that fails."""
        return self._todo

    def down(self, lane: Lane) -> None:
        """It could not be asked now; it is asked once more when no other one had an answer, or when another one's answer wasn't good enough."""
        self._asked.remove(lane)
        self._skipped.append(lane)

    def failed(self, lane: Lane, code: Code) -> None:
        """It was asked, and the row is lost on it."""
        if code in QUALITY and self._ladder:
            self._todo = [step for step in self._ladder if step not in self._asked]
            self._skipped = []
            self._ladder = ()
            self.kind = "escalation"
        elif code is Code.TOO_LONG and lane.window is not None:
            most = lane.window
            self._todo = [other for other in self._todo if other.window is None or other.window > most]
