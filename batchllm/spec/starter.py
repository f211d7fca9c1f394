"""The text of a first job file: short, commented, and working as it stands.

The trap: whatever a column or a task is called must come out as the same text in YAML and in the template, so every text is written as a JSON string (which YAML
reads alike) and odd column names as `row['...']`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from batchllm.core import json

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*[A-Za-z0-9_]\Z|[A-Za-z_]\Z")
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "none"})
_RESERVED = frozenset({"row", "true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else", "loop", "self"})
"""What a template reads as something else than a column."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starter:
    """What a first job file says."""

    input: str
    """Path from the job file."""
    delimiter: str | None
    """What separates a CSV file's cells, when it isn't what its extension says."""
    own_requests: bool
    """Whether rows bring their own messages: then there is no prompt."""
    id: str | None
    text: str | None
    others: Sequence[str]
    """Further columns, for the comment."""
    numbers: Sequence[str]
    keep: Sequence[str]
    task: str | None
    """What to do with each text; a text with `{{` is the whole user message."""
    provider: str
    model: str
    base_url: str | None
    key_env: str | None
    max_tokens: int
    price: tuple[str, str] | None
    """The user's own: dollars per million input and output tokens."""
    budget_usd: str | None
    """None where no price is known, so that no cap could be kept."""


def starter(job: Starter, *, file: str) -> str:
    """The file's text; `file` is how the user calls it."""
    return "\n".join(_lines(job, file)) + "\n"


def placeholder(column: str) -> str:
    """How a template names a column: `{{ text }}`, `{{ row['Review Text'] }}`."""
    if _NAME.match(column) and column not in _RESERVED:
        return f"{{{{ {column} }}}}"
    escaped = column.replace("\\", "\\\\").replace("'", "\\'")
    return f"{{{{ row['{escaped}'] }}}}"


def _scalar(text: str) -> str:
    return (
        text if _PLAIN.match(text) and text.lower() not in _WORDS and not re.fullmatch(r"[\d._+-]+(e\d+)?", text, re.IGNORECASE) else json.text(text)
    )


def _lines(job: Starter, file: str) -> Iterator[str]:
    yield f"# batchllm run {file} --simulate          all rows simulated, with a store and results of their own (no key, no cost)"
    yield f"# batchllm try {file}                     one row for real, to see request, route, cost and answer"
    yield f"# batchllm run {file} --limit 10          the first rows for real; without --limit all of them"
    yield ""
    yield _input(job)
    if job.id is None:
        yield "# id: NAME                    # the column that names a row; without it rows are numbered"
    elif job.id == "custom_id":
        yield "# rows are named by their `custom_id`"
    else:
        yield f"id: {_scalar(job.id)}      # names a row: its answer is found again by it"
    yield ""
    yield from _prompt(job)
    yield f"request: {{max_tokens: {job.max_tokens}}}      # parameters as in OpenAI's chat completions, for every provider; the cap bounds the cost"
    yield ""
    yield "models:"
    yield "  main:                         # a name of your own"
    yield f"    provider: {job.provider}"
    yield f"    model: {_scalar(job.model)}"
    if job.base_url is not None:
        yield f"    base_url: {json.text(job.base_url)}"
    if job.key_env is not None:
        yield f"    api_key_env: {job.key_env}      # the environment variable (or a line in .env) that holds the key; `none` sends none"
    if job.price is not None:
        yield f"    price: {{input: {job.price[0]}, output: {job.price[1]}}}      # USD per million tokens"
    elif job.budget_usd is None:
        yield "    # price: {input: 0.10, output: 0.50}      # USD per million tokens, yours: no price of this model is known"
    yield "    # limits: {rpm: 500, tpm: 200000}      # your account's; left out they are found from headers and refusals"
    yield ""
    yield from _output(job)
    yield ""
    if job.budget_usd is None:
        yield "# budget: {usd: 1}      # a hard cap over the job's whole life; it can be kept once the model has a `price`"
    else:
        yield f"budget: {{usd: {job.budget_usd}}}      # a hard cap over the job's whole life, however many runs it takes"


def _input(job: Starter) -> str:
    about = [f"path: {_scalar(job.input)}"]
    if job.delimiter is not None:
        about.append(f"delimiter: {json.text(job.delimiter)}")
    if job.numbers:
        about.append(f"types: {{{', '.join(f'{_scalar(name)}: number' for name in job.numbers)}}}")
    if len(about) == 1:
        return f"input: {_scalar(job.input)}"
    return f"input: {{{', '.join(about)}}}" + ("      # other cells are text" if job.numbers else "")


def _prompt(job: Starter) -> Iterator[str]:
    if job.own_requests:
        yield "# no `prompt`: each row brings its own messages"
        return
    mark = placeholder(job.text) if job.text is not None else ""
    if job.others:
        yield f"# columns: {', '.join(placeholder(name) for name in job.others)}"
    if job.task is not None and "{{" in job.task:
        yield f"prompt: {json.text(job.task)}"
        return
    yield "prompt:"
    yield f"  system: {json.text(_literal(job.task) if job.task else 'Say in one short sentence what this text is about.')}"
    yield f"  user: {json.text(mark)}"


def _literal(text: str) -> str:
    """A text in which a template sees no marks of its own."""
    return text.replace("{%", "{{ '{%' }}").replace("{#", "{{ '{#' }}")


def _output(job: Starter) -> Iterator[str]:
    if job.keep:
        yield f"output: {{keep: [{', '.join(map(_scalar, job.keep))}]}}      # input columns carried into the results"
    else:
        yield "# output: {keep: [COLUMN]}      # input columns carried into the results"
    yield '# max_failed: "1%"              # so many failed rows still count as success'
