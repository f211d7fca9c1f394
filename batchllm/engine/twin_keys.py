"""Which rows ask the same: a key of 16 bytes that two rows have in common exactly when one answer serves both.

The trap: a key that says too little shares an answer that a row must not have. So besides the row's request it holds everything else that its answer can come
from: every model of its chain and its ladder, with what each of them adds to the request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from batchllm.core import json
from batchllm.core.nouns import Draft
from batchllm.rows.request import fingerprint

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane
    from batchllm.spec import JobSpec

KEY_BYTES = 16


class Twin(NamedTuple):
    """What a row that may share an answer is recognised by."""

    key: bytes
    fingerprint: str
    """Of its request to the first model of its chain."""


class _Chain(NamedTuple):
    """What is the same for all rows of a chain."""

    salt: bytes
    repeatable: bool
    """Whether the spec's own parameters make equal requests give equal answers."""


def repeatable(endpoint: str, params: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether equal requests are meant to give equal answers: temperature 0, a seed, or embeddings."""
    if endpoint == "embeddings":
        return True
    asked = {**params, **body} if body else params
    return asked.get("temperature") == 0 or asked.get("seed") is not None


class TwinKeys:
    """One per run."""

    def __init__(self, spec: JobSpec, lanes: Sequence[Lane], ladder: Sequence[Lane], *, reads_rows: bool) -> None:
        """`reads_rows`: whether `output.check` looks at the row, so that the same answer may be right for one row and wrong for another."""
        self._all = spec.dedupe is True
        self._endpoint = spec.endpoint
        self._ladder = tuple(ladder)
        self._chains: dict[tuple[Lane, ...], _Chain] = {}
        rows_say = spec.prompt is None or spec.overrides.request is not None
        may = self._all or rows_say or spec.endpoint == "embeddings" or any(repeatable(spec.endpoint, lane.params, lane.spec.body) for lane in lanes)
        # What functions of the program say may be another thing each time.
        told = spec.toolkit is None or self._all
        self.apply = spec.dedupe is not False and told and not reads_rows and spec.samples in {None, 1} and may
        """Whether any row of this run can have a key; asking for one costs something."""

    def of(self, draft: Draft, lanes: tuple[Lane, ...]) -> Twin | None:
        """A row's key; None when its answer isn't shared. `lanes`: its chain, as routed."""
        chain = self._chains.get(lanes)
        if chain is None:
            chain = self._chains[lanes] = self._chain(lanes)
        if not (self._all or self._repeatable(draft, lanes, chain)):
            return None
        told = fingerprint(lanes[0].request(draft))
        parts = chain.salt + told.encode()
        if draft.params and (len(lanes) > 1 or self._ladder):
            # Merged with the first model's they may say the same, and not with the next one's.
            parts += json.canonical(draft.params)
        return Twin(sha256(parts).digest()[:KEY_BYTES], told)

    def _repeatable(self, draft: Draft, lanes: tuple[Lane, ...], chain: _Chain) -> bool:
        if not draft.params and draft.endpoint == self._endpoint:
            return chain.repeatable
        return all(repeatable(draft.endpoint, lane.request(draft).params, lane.spec.body) for lane in (*lanes, *self._ladder))

    def _chain(self, lanes: tuple[Lane, ...]) -> _Chain:
        asked = (*lanes, *self._ladder)
        form = [[lane.deployment.identity, lane.params, lane.spec.body] for lane in asked]
        return _Chain(
            sha256(json.canonical([len(lanes), form])).digest(), all(repeatable(self._endpoint, lane.params, lane.spec.body) for lane in asked)
        )
