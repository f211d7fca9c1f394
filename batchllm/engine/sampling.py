"""Several independent answers per row (`samples`): which are still missing, and what the row's one result says of them.

Each answer is kept in the store as soon as it is there, so a run that ends between two of a row's answers pays for none of them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from batchllm.core import json
from batchllm.core.nouns import Request
from batchllm.route import Vote
from batchllm.rows.request import fingerprint
from batchllm.store.records import Answer
from batchllm.store.vectors import output_of

if TYPE_CHECKING:
    from batchllm.engine.lane import Lane
    from batchllm.engine.work import Work
    from batchllm.spec import JobSpec


class Sample(NamedTuple):
    """One good answer of a row."""

    answer: Answer
    model: str
    """The name of the model that gave it."""


class Sampling:
    """What a job wants; one per run."""

    def __init__(self, count: int, vote: Vote | None) -> None:
        self.count = count
        self._vote = vote

    @classmethod
    def of(cls, spec: JobSpec) -> Sampling | None:
        """None for a job that wants one plain answer per row. Raises SpecError for a `vote` that can't be read."""
        if spec.samples is None:
            return None
        return cls(spec.samples, Vote(spec.output.vote) if spec.output.vote is not None else None)

    def missing(self, work: Work) -> int | None:
        """The number (from 0) of the answer to ask for next; None when all are there."""
        return next((nth for nth in range(self.count) if nth not in work.samples), None)

    def take(self, work: Work, kept: Mapping[int, Sample], lanes: Sequence[Lane]) -> None:
        """Gives a row its answers of earlier runs, as far as they were given by one of these models to what it asks now."""
        assert work.draft is not None
        told: dict[int, str] = {}
        for nth, sample in kept.items():
            for lane in lanes:
                if lane.deployment_id == sample.answer.deployment and nth < self.count:
                    if lane.deployment_id not in told:
                        told[lane.deployment_id] = fingerprint(lane.request(work.draft))
                    if told[lane.deployment_id] == sample.answer.fingerprint:
                        work.samples[nth] = sample

    def result(self, work: Work) -> Sample:
        """The row's one result: a majority's answer, or the first one where nobody votes."""
        samples = [work.samples[nth] for nth in range(self.count)]
        chosen, agreement = samples[0], None
        if self._vote is not None:
            votes = [self._voted(sample.answer) for sample in samples]
            counted = Counter(vote for vote in votes if vote is not None)
            # Among equals the one that was there first.
            best = max(counted.values(), default=0)
            chosen = next((sample for sample, vote in zip(samples, votes, strict=True) if vote is not None and counted[vote] == best), samples[0])
            agreement = best / self.count
        answer = chosen.answer
        told = answer.fingerprint
        assert told is not None
        return Sample(
            answer._replace(
                cost_pico=work.cost_pico,
                attempts=work.attempts,
                fingerprint=of_samples(told, self.count),
                samples=json.text([_shown(sample.answer) for sample in samples]),
                agreement=agreement,
            ),
            chosen.model,
        )

    def _voted(self, answer: Answer) -> bytes | None:
        assert self._vote is not None
        value = self._vote.of(parsed=_parsed(answer), output=answer.output if isinstance(answer.output, str) else None)
        return None if value is None else json.canonical(value)


def of_samples(told: str, count: int | None) -> str:
    """A fingerprint with the number of answers that are asked for: another number is another job for the row."""
    return told if count is None else f"{told}+{count}"


def seeded(request: Request, nth: int) -> Request:
    """The request for the nth answer: a seed, if there is one, is another one each time, or all answers would be the same."""
    if nth == 0:
        return request
    own, raw = request.params.get("seed"), request.body.get("seed")
    if isinstance(own, int):
        request = replace(request, params={**request.params, "seed": own + nth})
    return replace(request, body={**request.body, "seed": raw + nth}) if isinstance(raw, int) else request


def _parsed(answer: Answer) -> Any:
    return json.loads(answer.parsed) if answer.parsed is not None else None


def _shown(answer: Answer) -> dict[str, Any]:
    return {"output": output_of(answer.output), "parsed": _parsed(answer), "finish_reason": answer.finish_reason}
