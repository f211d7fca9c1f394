"""How far token estimates were off in a job: counted again for stored requests, against the usage that came back.

The trap: a few long rows must weigh what they weigh at a rate limit, so sums are compared and not rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchllm import tokens
from batchllm.core import json
from batchllm.spec import JobSpec, ModelSpec
from batchllm.store.learnt import load_learnt
from batchllm.store.read import StoreReader

_ROWS = 500
"""The latest answers of each model; enough for a ratio."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """Actual to estimated input tokens of one model of a job."""

    name: str
    """Under `models`."""
    model: str
    counter: str
    answers: int | None
    """None: the runs' own sums, over recent answers."""
    ratio: float


def ratios(reader: StoreReader, spec: JobSpec) -> Iterator[Ratio]:
    """One per model whose requests the store kept (`keep_bodies: all`) and whose answers told their usage."""
    for name, model in spec.models.items():
        counter = tokens.counter(model.provider, model.model, base_url=model.base_url)
        estimated = actual = answers = 0
        for text, used in _requests(reader, name):
            body = _body(text)
            if body is None:
                continue
            messages, params = body
            estimated += counter.estimate(messages, params)
            actual += used
            answers += 1
        if not answers:
            yield from _kept(reader, name, model, counter.name)
        elif estimated and actual:
            yield Ratio(name=name, model=model.model, counter=counter.name, answers=answers, ratio=actual / estimated)


def _kept(reader: StoreReader, name: str, model: ModelSpec, counter: str) -> Iterator[Ratio]:
    """What runs learnt and kept, where no requests were."""
    if reader.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'learnt'").fetchone() is None:
        return  # a store of an older version
    numbers = dict(reader.connection.execute("SELECT deployment, name FROM deployments WHERE name = ?", (name,)).fetchall())
    for number, learnt in load_learnt(reader.connection).items():
        if number in numbers and learnt.estimated and learnt.counted:
            yield Ratio(name=name, model=model.model, counter=counter, answers=None, ratio=learnt.counted / learnt.estimated)


def _requests(reader: StoreReader, name: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = reader.connection.execute(
        """SELECT bodies.request, log.input_tokens
           FROM attempt_log AS log JOIN bodies USING (attempt_id) JOIN deployments USING (deployment)
           WHERE log.outcome = 'ok' AND log.input_tokens > 0 AND bodies.request IS NOT NULL AND deployments.name = ?
           ORDER BY attempt_id DESC LIMIT ?""",
        (name, _ROWS),
    ).fetchall()
    return found


def _body(text: Any) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]] | None:
    """Messages and parameters of a request on a wire that calls them so (OpenAI's, Anthropic's, Ollama's)."""
    try:
        body = json.loads(text)
    except (TypeError, ValueError):
        return None
    messages = body.get("messages") if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        return None
    return messages, {key: value for key, value in body.items() if key != "messages"}
