"""A row on its walk through one run: what is known of it, and what its attempts came to so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batchllm.core.nouns import Draft, Reply, RowError
from batchllm.store import History

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane


class Work:
    """Mutable on purpose: one per row in progress, seen by one journey only."""

    __slots__ = (
        "attempts",
        "by_outcome",
        "chain",
        "cost_pico",
        "custom_id",
        "draft",
        "failures",
        "identical",
        "kept",
        "kind",
        "last_words",
        "patient",
        "position",
        "row_key",
        "suspect",
        "ticket",
    )

    def __init__(
        self, *, row_key: int, position: int, custom_id: str | None, draft: Draft | None, chain: Sequence[Lane], history: History, kept: str | None
    ) -> None:
        self.row_key = row_key
        self.position = position
        self.custom_id = custom_id
        self.draft = draft
        self.chain = chain
        self.kept = kept
        """The kept input columns as JSON."""
        self.attempts = history.attempts
        """Requests ever sent for it."""
        self.failures: dict[str, int] = dict(history.failures)
        """Per model: attempts that count towards max_attempts."""
        self.by_outcome: dict[tuple[str, str], int] = dict(history.by_outcome)
        self.cost_pico = history.cost_pico
        self.kind = "retry" if history.resent else "first"
        """Of its next attempt."""
        self.last_words: tuple[Any, ...] = ()
        self.identical = 0
        self.ticket = 0
        """Its place in the order of arrival at the door."""
        self.patient = False
        """Whether it waits for a model that is down, because the others of its chain had no answer."""
        self.suspect = False
        """Whether it hung or broke off while the endpoint was answering others."""

    def spent(self, cost_pico: int | None) -> None:
        """Adds a known cost."""
        if cost_pico is not None:
            self.cost_pico = (self.cost_pico or 0) + cost_pico


class Outcome:
    """What one attempt brought: a reply or none, what was wrong with it, and what is written down about it."""

    __slots__ = ("attempt_id", "error", "latency_seconds", "reply")

    def __init__(self, *, attempt_id: int, reply: Reply | None, error: RowError | None, latency_seconds: float) -> None:
        self.attempt_id = attempt_id
        self.reply = reply
        self.error = error
        self.latency_seconds = latency_seconds
