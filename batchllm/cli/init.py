"""`batchllm init`: a first job file for a file of rows."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from batchllm.core.nouns import Row
    from batchllm.rows.guess import Guess

_EPILOG = """\b
Examples:
  batchllm init reviews.csv
  batchllm init reviews.csv --task "Label as positive, negative or mixed." --yes
  batchllm init rows.jsonl --to job.yaml --provider anthropic --model claude-haiku-5-5
  batchllm init rows.jsonl --provider openai-compatible --base-url http://localhost:8000/v1 --model my-model
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
@click.option("--max-tokens", type=click.IntRange(min=1), default=300, show_default=True, help="Longest answer.")
@click.option("--budget", metavar="USD", default="1", show_default=True, help="Hard cap.")
@click.option("--yes", is_flag=True, help="Ask nothing: take flags and guesses.")
@click.option("--force", is_flag=True, help="Replace the job file if it is there.")
def command(data: Path, to: Path | None, **flags: Any) -> None:
    """Write a commented, working job for a JSONL or CSV file; asks on a terminal, else takes flags and guesses."""
    from batchllm.core.errors import SpecError
    from batchllm.report.text import rows as counted
    from batchllm.rows.guess import guess
    from batchllm.spec.starter import Starter, starter

    to = to if to is not None else Path(f"{_stem(data)}.yaml")
    if to.exists() and not flags["force"]:
        raise SpecError(f"{to} is there already; name another file with --to, or replace it with --force")
    if to.suffix.lower() not in (".yaml", ".yml"):
        raise SpecError(f"{to}: a job file of this command ends in .yaml")
    rows, cells = _rows(data)
    found = guess([row.fields for row in rows], cells=cells)
    asks = not flags["yes"] and sys.stdin.isatty() and sys.stderr.isatty()
    _say(f"{data}: {'at least ' if len(rows) >= _LOOK_AT else ''}{counted(len(rows))}, columns {', '.join(found.columns)}")
    answers = _answers(found, flags, asks=asks)
    own = found.shape != "columns" and flags["task"] is None and flags["text"] is None
    spec = Starter(
        input=os.path.relpath(data.absolute(), to.absolute().parent),
        own_requests=own,
        id=answers["id"],
        text=answers["text"],
        others=[name for name in found.columns if name != answers["id"]],
        numbers=[name for name in found.numbers if name != answers["id"]],
        keep=[name for name in found.groups if name not in (answers["id"], answers["text"])][:4] if not own else [],
        task=answers["task"],
        provider=answers["provider"],
        model=answers["model"],
        base_url=flags["base_url"],
        key_env=answers["key_env"],
        max_tokens=flags["max_tokens"],
        budget_usd=_usd(flags["budget"]),
    )
    _write(to, starter(spec, file=shlex.quote(str(to))))


def _write(to: Path, text: str) -> None:
    """Checks the job as a run would, writes it, and shows the first prompt. A job that doesn't load is not written."""
    from batchllm.core.errors import Problem, SpecError
    from batchllm.core.nouns import RowError
    from batchllm.engine.try_row import choose
    from batchllm.spec import loads

    spec = loads(text, folder=to.absolute().parent, path=to.absolute(), file=str(to))
    chosen = choose(spec, os.environ, None, None)
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
    _say(f"\nNext:\n  batchllm try {name} --simulate\n  batchllm run {name} --simulate\n  batchllm doctor {name}")


def _indented(text: str) -> str:
    from batchllm.report.text import clean_lines

    text = clean_lines(text)
    return (text if len(text) <= 1500 else f"{text[:1500]}…").replace("\n", "\n    ")


def _stem(data: Path) -> str:
    name = data.name
    for suffix in (".gz", ".zst", ".jsonl", ".ndjson", ".csv", ".tsv"):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def _rows(data: Path) -> tuple[list[Row], bool]:
    """The first readable rows, and whether they are cells."""
    from batchllm.core.errors import Problem, SpecError
    from batchllm.rows import files, read

    found = files.resolve([str(data.absolute())])
    chunks = read.read(found)
    looked = list(itertools.islice(itertools.chain.from_iterable(chunks), _LOOK_AT))
    rows = [row for row in looked if row.fields]
    if not rows:
        why = looked[0].error.message if looked and looked[0].error is not None else "it holds no row"
        raise SpecError(Problem(file=str(data), message=f"no row can be read: {why}"))
    return rows, found[0].format == "csv"


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
    if provider == "openai-compatible" and flags["base_url"] is None:
        raise SpecError(Problem(file="--base-url", message="openai-compatible needs the server's address, e.g. http://localhost:8000/v1"))
    key_env = flags["api_key_env"]
    if key_env is None and provider != "simulated" and (flags["base_url"] is not None or usual_key is None) and provider != "ollama":
        key_env = "none"
    return {"provider": provider, "model": model, "key_env": key_env or (usual_key if flags["base_url"] is None else None)}


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


def _say(text: str) -> None:
    click.echo(text, err=True)
