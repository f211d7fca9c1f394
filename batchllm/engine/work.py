"""A row on its walk through one run: what is known of it, and what its attempts came to so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from batchllm.core.nouns import Draft, Request
from batchllm.rows.request import fingerprint
from batchllm.store import History

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane
    from batchllm.engine.sampling import Sample


class Work:
    """Mutable on purpose: one per row in progress, seen by one journey only."""

    __slots__ = (
        "ahead",
        "attempts",
        "by_outcome",
        "chain",
        "cost_pico",
        "custom_id",
        "draft",
        "excused",
        "excused_at",
        "failures",
        "fields",
        "fingerprint",
        "gateway_at",
        "identical",
        "invalid",
        "kept",
        "kind",
        "last_words",
        "paid_excuses",
        "patient",
        "position",
        "route",
        "row_key",
        "samples",
        "suspect",
        "ticket",
        "trimmed",
        "turns",
        "twin",
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
        self.fields: Mapping[str, Any] | None = None
        """The record, where `output.check` looks at it."""
        self.ahead: Sequence[Lane] = ()
        """The models that may still be asked after the present one."""
        self.invalid = 0
        """Invalid answers of the present model, in this walk."""
        self.turns = 0
        """Turns of its conversation with the present model in which tools were called, in this walk."""
        self.cost_pico = history.cost_pico
        self.kind = "retry" if history.resent else "first"
        """Of its next attempt."""
        self.last_words: tuple[Any, ...] = ()
        self.identical = 0
        self.route: int | None = None
        """The number of the rule that chose its models; None when it was sent to a model by its name."""
        self.ticket = 0
        """Its place in the order of arrival at the door."""
        self.trimmed = 0
        """Messages that its request to the present model lost to fit (`context`)."""
        self.patient = False
        """Whether it waits for a model that is down, because the others of its chain had no answer."""
        self.suspect = False
        """Whether it hung or broke off while the endpoint was answering others."""
        self.excused = 0
        """Faults of it that were taken for the endpoint's."""
        self.paid_excuses = history.excused
        """Those of them that may have been paid for, over all runs."""
        self.excused_at: float | None = None
        """When the first of them came."""
        self.gateway_at: float | None = None
        """When a gateway first found nobody behind it for this row."""
        self.samples: dict[int, Sample] = {}
        """Its good answers so far, where it is to have several."""
        self.twin: bytes | None = None
        """What it has in common with rows that ask the same; None: its answer is for itself."""
        self.fingerprint: tuple[Lane, str] | None = None
        """That of its request to this model, where it was needed before: it is costly."""

    def fingerprint_of(self, lane: Lane, request: Request) -> str:
        """The fingerprint of its request to a model."""
        known = self.fingerprint
        return known[1] if known is not None and known[0] is lane else fingerprint(request)

    def spent(self, cost_pico: int | None) -> None:
        """Adds a known cost."""
        if cost_pico is not None:
            self.cost_pico = (self.cost_pico or 0) + cost_pico
