"""A job's ok answers as training data: each row's prompt is filled again, and the answer that was accepted is put behind it.

The prompt comes from the spec and the input, not from the bodies in the store: an answer that was repaired was given to a request that shows its mistakes, and nobody wants
to train on those. The trap is a prompt that changed since: a row whose request is no longer the one that was answered is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from batchllm.core import json
from batchllm.core.errors import SpecError
from batchllm.core.nouns import Result, Row, RowError, Wanted
from batchllm.engine.answers import Answers
from batchllm.engine.deps import RunOptions
from batchllm.engine.source import Source
from batchllm.export.finetune import RULES, Count, Trainer, Unfit, example, line_of
from batchllm.report.gather import InputRows
from batchllm.rows.request import fingerprint, merge
from batchllm.rows.sample import chosen
from batchllm.spec import JobSpec
from batchllm.store.read import Since, StoreReader, finished_rows, identity, result_of, selection
from batchllm.tokens import counter


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One line, and the file that it goes to."""

    line: bytes
    validation: bool


@dataclass(slots=True, kw_only=True)
class Told:
    """What was written and what was left out; filled while examples are taken."""

    training: Count = field(default_factory=Count)
    validation: Count = field(default_factory=Count)
    left_out: Counter[str] = field(default_factory=Counter)
    """Reasons."""
    counter: str = ""
    exact: bool = False


def examples(
    reader: StoreReader,
    spec: JobSpec,
    environ: Mapping[str, str],
    told: Told,
    *,
    trainer: Trainer,
    model: str,
    where: str | None,
    since: Since | None,
    validation: float,
) -> Iterator[Example]:
    """Training examples in input order. `validation`: the part that goes into the validation file, the same rows in every export. Raises SpecError when the input can't be
    read again.
    """
    if spec.endpoint not in {"chat", "responses"}:
        raise SpecError(f"--format finetune is for chats; this job's endpoint is {spec.endpoint}")
    try:
        source, inputs = Source(spec, RunOptions(), environ), InputRows(spec, environ)
    except SpecError as error:
        raise SpecError(f"training data needs the prompts, and the input can't be read again: {error}") from error
    wanted = Answers(spec).wanted
    tokens = counter(trainer, model)
    told.counter, told.exact = tokens.name, tokens.exact
    condition, values = selection(status="ok", where=where, since=since)
    for stored in finished_rows(reader, condition, values, where=where):
        key, result = stored[0], result_of(stored)
        known = identity(reader.connection, key)
        row = inputs.at(result.row)
        try:
            messages, params = _asked(spec, source, row if row is not None and row.identity == known else None, result, wanted, reader, key)
            answer = _answer(result)
            line = line_of(example(trainer, messages, params, answer))
        except Unfit as problem:
            told.left_out[str(problem)] += 1
            continue
        used = tokens.estimate([*messages, answer], {name: params[name] for name in ("tools",) if params.get(name)})
        # A name of its own, or a validation set would be the very rows of `run --sample`.
        aside = validation > 0 and chosen(f"validation:{known}", validation)
        (told.validation if aside else told.training).add(line, used, most_tokens=RULES[trainer].most_tokens)
        yield Example(line=line, validation=aside)


def _asked(
    spec: JobSpec, source: Source, row: Row | None, result: Result, wanted: Wanted | None, reader: StoreReader, key: int
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Messages and parameters that the answer was given to."""
    changed = Unfit("the row or its prompt has changed since it was answered")
    if row is None:
        raise changed
    (stored,) = reader.one("SELECT fingerprint FROM outcomes WHERE row_key = ?", (key,))
    planned = source.plan(row, result.model)
    model = spec.models.get(result.model or "")
    if isinstance(planned, RowError) or model is None:
        raise changed
    request = merge(planned.draft, spec_request=spec.request, model_request=model.request, body=model.body, wanted=wanted)
    if fingerprint(request) != stored:
        raise changed
    return list(request.messages), request.params


def _answer(result: Result) -> dict[str, Any]:
    """The assistant's message. A value that was read out of the answer says it best: without the fence or the chatter around it."""
    text = result.output
    if result.parsed is not None:
        text = result.parsed if isinstance(result.parsed, str) else json.text(result.parsed)
    if text is not None and not isinstance(text, str):
        raise Unfit("the answer is no text")
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if result.tool_calls:
        message["tool_calls"] = list(result.tool_calls)
    return message
