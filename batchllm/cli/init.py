"""`batchllm init`: a first job file for a file of rows."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchllm.core.nouns import Row
    from batchllm.rows.files import InputFile
    from batchllm.rows.guess import Guess
    from batchllm.spec.starter import Starter

_EPILOG = """\b
Examples:
  batchllm init reviews.csv
  batchllm init reviews.csv --task "Label as positive or negative." --yes
  batchllm init rows.jsonl --to job.yaml --model claude-haiku-5-5 \\
    --provider anthropic
  batchllm init rows.jsonl --base-url http://localhost:8000/v1 \\
    --model my-model --price 0/0
  batchllm init rows.jsonl --task "Translate to French: {{ text }}\""""
_MODELS = {
    "openai": ("gpt-6-luna", "OPENAI_API_KEY"),
    "anthropic": ("claude-haiku-5-5", "ANTHROPIC_API_KEY"),
    "gemini": ("gemini-3.8-flash", "GEMINI_API_KEY"),
    "ollama": ("gemma4", None),
    "openai-compatible": (None, None),
    "simulated": ("sim-small", None),
}
"""Provider: an inexpensive model, and the variable that usually holds its key."""
_LOOK_AT = 20_000


@click.command(epilog=_EPILOG)
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--to", type=click.Path(path_type=Path), help="The job file to write.  [default: DATA's name with .yaml, here]")
@click.option("--text", metavar="COLUMN", help="The column with the text.  [default: guessed]")
@click.option("--id", "id_", metavar="COLUMN", help="The column that names a row, or `none`.  [default: guessed]")
@click.option("--task", help="What to do with each text; with {{ column }} in it, the whole prompt.")
@click.option("--provider", type=click.Choice(list(_MODELS)), help="Who answers.  [default: whose key is set, else openai]")
@click.option("--model", metavar="ID", help="The provider's model id.")
@click.option("--base-url", metavar="URL", help="The server's address, where it isn't the provider's own.")
@click.option("--api-key-env", metavar="NAME", help="The environment variable with the key, or `none`.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", default=300, show_default=True, help="Longest answer.")
@click.option("--price", metavar="IN/OUT", help="USD per million input and output tokens, such as 0.10/0.50.  [default: the known price]")
@click.option("--budget", metavar="USD", help="Hard cap.  [default: 1, where a price is known]")
@click.option("--yes", is_flag=True, help="Ask nothing: take flags and guesses.")
@click.option("--force", is_flag=True, help="Replace the job file if it is there.")
def command(data: Path, to: Path | None, **flags: Any) -> None:
    """Write a commented, working job for a JSONL, CSV or Parquet file; asks on a terminal, else takes flags and guesses."""
    from batchllm.core.errors import SpecError
    from batchllm.report.text import rows as counted
    from batchllm.rows.guess import guess
    from batchllm.spec.starter import Starter

    to = to if to is not None else Path(f"{_stem(data)}.yaml")
    if to.exists() and not flags["force"]:
        raise SpecError(f"{to} is there already; name another file with --to, or replace it with --force")
    if to.suffix.lower() not in (".yaml", ".yml"):
        raise SpecError(f"{to}: a job file of this command ends in .yaml")
    rows, cells, delimiter = _rows(data)
    found = guess([row.fields for row in rows], cells=cells)
    asks = not flags["yes"] and sys.stdin.isatty() and sys.stderr.isatty()
    _say(f"{data}: {'at least ' if len(rows) >= _LOOK_AT else ''}{counted(len(rows))}, columns {', '.join(found.columns)}")
    answers = _answers(found, flags, asks=asks)
    own = found.shape != "columns" and flags["task"] is None and flags["text"] is None
    spec = Starter(
        input=os.path.relpath(data.absolute(), to.absolute().parent),
        delimiter=delimiter,
        own_requests=own,
        id=answers["id"],
        text=answers["text"],
        others=[name for name in found.columns if name != answers["id"]],
        numbers=[name for name in found.numbers if name != answers["id"]],
        keep=[name for name in found.groups if name not in (answers["id"], answers["text"])][:4] if not own else [],
        task=answers["task"],
        provider=answers["provider"],
        model=answers["model"],
        base_url=answers["base_url"],
        key_env=answers["key_env"],
        max_tokens=flags["max_tokens"],
        price=_price(flags["price"]),
        budget_usd=_usd(flags["budget"] if flags["budget"] is not None else "1"),
    )
    if spec.price is None and not _price_is_known(spec, to):
        spec = _without_price(spec, capped=flags["budget"] is not None, asks=asks)
    _write(to, spec, task_given=flags["task"] is not None)


def _price_is_known(job: Starter, to: Path) -> bool:
    import time

    from batchllm.engine.facts import price_finder
    from batchllm.spec import loads
    from batchllm.spec.starter import starter

    model = loads(starter(job, file=str(to)), folder=to.absolute().parent, file=str(to)).models["main"]
    return price_finder(model, model.api_base(os.environ))(model.model, time.time(), None) is not None


def _without_price(job: Starter, *, capped: bool, asks: bool) -> Starter:
    """A cap in dollars can't be kept without a price; a job that has one would not start."""
    from batchllm.core.errors import Problem, SpecError

    if asks:
        question = "Price of a million input and output tokens in USD, such as 0.10/0.50 (empty: not known)"
        price = click.prompt(question, default="", show_default=False, value_proc=_price_said, err=True)
        if price is not None:
            return replace(job, price=price)
    if capped:
        words = f"the price of {job.model!r} there is not known, so no cap in dollars can be kept; give it: --price 0.10/0.50 (USD per million input and output tokens)"
        raise SpecError(Problem(file="--budget", message=words))
    _say(
        f"The price of {job.model} there is not known, so the job has no cap in dollars. To have one: --price 0.10/0.50, or `price` and `budget` in the file."
    )
    return replace(job, budget_usd=None)


def _write(to: Path, job: Starter, *, task_given: bool) -> None:
    """Checks the job as a run would, writes it, and shows the first prompt. A job that doesn't load is not written."""
    from batchllm.core.errors import Problem, SpecError
    from batchllm.core.nouns import RowError
    from batchllm.engine.try_row import choose
    from batchllm.spec import loads
    from batchllm.spec.starter import starter

    text = starter(job, file=shlex.quote(str(to)))
    spec = loads(text, folder=to.absolute().parent, path=to.absolute(), file=str(to))
    try:
        chosen = choose(spec, os.environ, None, None)
    except SpecError as error:
        # The file that it would be about is not written.
        at_task = [Problem(file="--task", message=problem.message) for problem in error.problems if (problem.path or "").startswith("prompt")]
        raise (SpecError(at_task) if task_given and at_task else error) from None
    try:
        to.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SpecError(Problem(file=str(to), message=f"can't be written: {error.strerror or error}")) from None
    _say(f"wrote {to}")
    if isinstance(chosen, RowError):
        _say(f"\nThe first row can't be asked: {chosen.message}")
    else:
        _say("\nThe first prompt:")
        for message in chosen.draft.messages:
            content = message.get("content")
            _say(f"  [{message.get('role')}] {_indented(content if isinstance(content, str) else str(content))}")
    name = shlex.quote(str(to))
    steps = [
        (f"batchllm run {name} --simulate", "all rows, without a key and a cost"),
        (f"batchllm doctor {name}", "is everything there?"),
        (f"batchllm try {name}", "one row for real"),
        (f"batchllm run {name}", "all of them"),
        (f"batchllm export {name} --with all --to answers.csv", "the answers beside their rows"),
    ]
    wide = max(len(command) for command, _ in steps)
    _say("\nNext:\n" + "\n".join(f"  {command:<{wide}}   # {what}" for command, what in steps))


def _indented(text: str) -> str:
    from batchllm.report.text import clean_lines

    text = clean_lines(text)
    return (text if len(text) <= 1500 else f"{text[:1500]}…").replace("\n", "\n    ")


def _stem(data: Path) -> str:
    name = data.name
    for suffix in (".gz", ".zst", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def _rows(data: Path) -> tuple[list[Row], bool, str | None]:
    """The first readable rows, whether they are cells, and what separates them if that isn't what the file's name says."""
    from batchllm.core.errors import Problem, SpecError
    from batchllm.rows import files, read

    found = files.resolve([str(data.absolute())])
    delimiter = _delimiter(found[0]) if found[0].format == "csv" else None
    chunks = read.read(found, delimiter=delimiter)
    looked = list(itertools.islice(itertools.chain.from_iterable(chunks), _LOOK_AT))
    rows = [row for row in looked if row.fields]
    if not rows:
        bad = looked[0].error if looked else None
        raise SpecError(
            Problem(file=str(data), message=f"no row can be read: {bad.message}" if bad is not None else "the file holds no row, only a header")
        )
    return rows, found[0].format == "csv", delimiter


def _delimiter(file: InputFile) -> str | None:
    """By the header, as a spreadsheet of another country writes it; None: as usual."""
    import csv

    from batchllm.rows.files import open_bytes
    from batchllm.rows.table import other_delimiter

    with open_bytes(file) as stream:
        header = stream.readline(1 << 20).decode("utf-8-sig", "replace")
    return other_delimiter(next(csv.reader([header], delimiter=file.delimiter), []))


def _answers(found: Guess, flags: dict[str, Any], *, asks: bool) -> dict[str, Any]:
    """Flags first, then what the person says, then guesses."""
    from batchllm.core.errors import Problem, SpecError

    problems = [
        Problem(file=f"--{name}", message=f"there is no column {flags[key]!r}; there are {', '.join(found.columns)}")
        for name, key in (("text", "text"), ("id", "id_"))
        if flags[key] is not None and flags[key] not in (*found.columns, "none")
    ]
    if problems:
        raise SpecError(problems)
    own = found.shape != "columns"
    answers: dict[str, Any] = {"text": flags["text"] or found.text, "id": flags["id_"] or found.id, "task": flags["task"]}
    if asks:
        if not own and flags["text"] is None:
            answers["text"] = _ask("Column with the text", answers["text"], list(found.columns))
        if flags["id_"] is None:
            answers["id"] = _ask("Column that names a row", answers["id"] or "none", [*found.columns, "none"])
        if not own and flags["task"] is None:
            answers["task"] = click.prompt(
                "What shall be done with each text", default="Say in one short sentence what this text is about.", err=True
            )
    if answers["id"] == "none":
        answers["id"] = None
    if not own and answers["text"] is None and "{{" not in (answers["task"] or ""):
        raise SpecError(Problem(file="--text", message=f"which column holds the text? there are {', '.join(found.columns)}"))
    return answers | _who(flags, asks=asks)


def _who(flags: dict[str, Any], *, asks: bool) -> dict[str, Any]:
    from batchllm.core.errors import Problem, SpecError
    from batchllm.spec.dotenv import environment

    provider = flags["provider"]
    if provider is None:
        environ = environment(Path.cwd(), os.environ)
        guessed = next((name for name, (_, key) in _MODELS.items() if key is not None and environ.get(key)), "openai")
        provider = _provider_of(flags["model"], flags["base_url"]) or guessed
        if asks:
            provider = _ask("Provider", provider, list(_MODELS))
    usual, usual_key = _MODELS[provider]
    model = flags["model"]
    if model is None and asks:
        model = click.prompt("Model", default=usual, err=True)
    model = model or usual
    if model is None:
        raise SpecError(Problem(file="--model", message=f"{provider} needs a model id"))
    base_url = flags["base_url"]
    if provider == "openai-compatible" and base_url is None:
        if not asks:
            raise SpecError(Problem(file="--base-url", message="openai-compatible needs the server's address, e.g. http://localhost:8000/v1"))
        base_url = click.prompt("The server's address, such as http://localhost:8000/v1", err=True)
    key_env = flags["api_key_env"]
    if key_env is None and provider not in ("simulated", "ollama"):
        key_env = usual_key if base_url is None else _key_of_server(base_url, asks=asks)
    return {"provider": provider, "model": model, "base_url": base_url, "key_env": key_env}


def _key_of_server(base_url: str, *, asks: bool) -> str:
    """The variable that usually holds a known server's key. Of an unknown one only its user knows."""
    from batchllm.spec.hosts import host_at

    known = host_at(base_url)
    usual = known.key_env if known is not None and known.key_env is not None else "none"
    if not asks:
        return usual
    answer: str = click.prompt("The environment variable that holds its key (`none`: it takes none)", default=usual, err=True)
    return answer


def _provider_of(model: str | None, base_url: str | None) -> str | None:
    from batchllm.cost.listing import maker

    if base_url is not None:
        return "openai-compatible"
    return maker(model) if model is not None else None


def _ask(question: str, default: str | None, choices: list[str]) -> str:
    answer: str = click.prompt(question, default=default, type=click.Choice(choices), err=True)
    return answer


def _usd(text: str) -> str:
    from decimal import Decimal, InvalidOperation

    from batchllm.core.errors import Problem, SpecError

    try:
        value = Decimal(text.lstrip("$"))
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or value < 0:
        raise SpecError(Problem(file="--budget", message=f"expected dollars such as 5 or 0.25, got {text!r}"))
    return f"{value:f}"


def _price(text: str | None) -> tuple[str, str] | None:
    from batchllm.core.errors import Problem, SpecError

    if text is None:
        return None
    both = text.split("/")
    try:
        if len(both) == 2:
            return _usd(both[0].strip()), _usd(both[1].strip())
    except SpecError:
        pass
    words = f"expected dollars per million input and output tokens, such as 0.10/0.50 (0/0: it costs nothing), got {text!r}"
    raise SpecError(Problem(file="--price", message=words))


def _price_said(text: str) -> tuple[str, str] | None:
    """An answer that can't be read is asked for again."""
    from batchllm.core.errors import SpecError

    try:
        return _price(text or None)
    except SpecError as error:
        raise click.BadParameter(error.problems[0].message) from None


def _say(text: str) -> None:
    click.echo(text, err=True)
