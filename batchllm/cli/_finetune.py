"""`batchllm export --format finetune`: one or two files of training examples, and what a person wants to know before uploading them."""

from __future__ import annotations

import contextlib
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchllm.core.errors import Problem, SpecError

if TYPE_CHECKING:
    from batchllm.cli._job import Job
    from batchllm.export.finetune import Trainer
    from batchllm.report.finetune import Told
    from batchllm.store.read import Since, StoreReader

_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%\Z")
_MODELS = {"openai": "gpt-4.1-mini", "anthropic": "claude-3-haiku", "gemini": "gemini-2.5-flash"}
"""Whose tokens are counted where the user names no model."""
OPTIONS = ("trainer", "model", "validation", "epochs", "training_price")


def options(command: Any) -> Any:
    """Adds the flags that go with --format finetune."""
    for decorate in (
        click.option("--training-price", metavar="USD", help="finetune: dollars per million training tokens.  [default: the known price]"),
        click.option(
            "--epochs",
            type=click.IntRange(min=1),
            metavar="N",
            help="finetune: how often all examples are gone through, for the price.  [default: 1]",
        ),
        click.option("--validation", metavar="PERCENT", help="finetune: so much goes to PATH.validation.jsonl, always the same rows."),
        click.option("--model", metavar="ID", help="finetune: the model to train, for token counts and price."),
        click.option("--for", "trainer", type=click.Choice(list(_MODELS)), help="finetune: whose form.  [default: openai]"),
    ):
        command = decorate(command)
    return command


def write(found: Job, reader: StoreReader, to: str, *, where: str | None, since: Since | None, flags: dict[str, Any], check_target: Any) -> int:
    """Writes the files and says on stderr what is in them. Returns the exit code: 1 when the provider's rules aren't met."""
    from batchllm.export.files import replacing
    from batchllm.export.finetune import broken_rules
    from batchllm.export.results import write_stdout
    from batchllm.report.finetune import Told, examples

    trainer: Trainer = flags["trainer"] or "openai"
    model = flags["model"] or _MODELS[trainer]
    share = _share(flags["validation"])
    price = _price(flags["training_price"], model)
    if share and to == "-":
        raise SpecError("--validation writes two files: name the first one with --to PATH")
    if found.spec is None:
        raise SpecError(f"training data needs the prompts, and the spec can't be read: {found.problem}")
    told = Told()
    lines = examples(reader, found.spec, found.environ, told, trainer=trainer, model=model, where=where, since=since, validation=share)
    if to == "-":
        write_stdout(one.line for one in lines)
    else:
        paths = [Path(to), *([_aside(Path(to))] if share else [])]
        for path in paths:
            check_target(found, str(path))
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(replacing(path)) for path in paths]
            for one in lines:
                files[one.validation].write(one.line)
        for path, count in zip(paths, (told.training, told.validation), strict=False):
            click.echo(f"wrote {path}: {count.examples:,} examples, {count.tokens:,} tokens", err=True)
    _tell(told, model=model, price=price, epochs=flags["epochs"] or 1)
    broken = broken_rules(trainer, told.training, told.validation if share else None)
    for words in broken:
        click.echo(f"warning: {words}", err=True)
    return 1 if broken else 0


def _tell(told: Told, *, model: str, price: Decimal | None, epochs: int) -> None:
    for reason, rows in told.left_out.most_common():
        click.echo(f"left out {rows:,} rows: {reason}", err=True)
    repeats = told.training.repeats + told.validation.repeats
    if repeats:
        click.echo(f"equal to an earlier example: {repeats:,}", err=True)
    how = f"counted by {told.counter}" if told.exact else "estimated"
    times = f"{told.training.tokens:,} tokens ({how} for {model})" + (f" x {epochs} epochs" if epochs > 1 else " an epoch")
    if price is None:
        click.echo(f"training: {times}; its price isn't known: give it with --training-price USD (per million tokens)", err=True)
    else:
        usd = price * told.training.tokens * epochs / 1_000_000
        about = f"about ${usd:.2f}" if usd >= Decimal("0.01") else "less than a cent"
        click.echo(f"training: {times} at ${price:f} per million = {about}", err=True)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.validation{path.suffix}")


def _share(text: str | None) -> float:
    if text is None:
        return 0.0
    percent = _PERCENT.match(text.strip())
    if percent is None or not 0 < float(percent[1]) < 100:
        raise SpecError(Problem(file="--validation", message=f"expected a percentage between 0 and 100, such as 10%, got {text!r}"))
    return float(percent[1]) / 100


def _price(text: str | None, model: str) -> Decimal | None:
    from batchllm.cost.training import training_usd_per_million

    if text is None:
        return training_usd_per_million(model)
    try:
        price = Decimal(text.lstrip("$"))
    except InvalidOperation:
        price = Decimal("nan")
    if not price.is_finite() or price < 0:
        raise SpecError(Problem(file="--training-price", message=f"expected dollars per million tokens, such as 5, got {text!r}"))
    return price
