"""`batchllm models`: what a provider serves; for Ollama also show, pull and create."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import click

from batchllm.cli._group import Fallback

if TYPE_CHECKING:
    from batchllm.core.wire import Transport
    from batchllm.engine.served import Server
    from batchllm.providers.catalog import Served
    from batchllm.providers.pulling import Step

T = TypeVar("T")
_PROVIDERS = ("openai", "anthropic", "gemini", "ollama", "openai-compatible")
_EPILOG = """\b
Examples:
  batchllm models reviews.yaml
  batchllm models --provider openai
  batchllm models --base-url http://localhost:8000/v1 --api-key-env none
  batchllm models show gemma4
  batchllm models pull gemma4
  batchllm models create terse --from gemma4 --system "Answer in a word.\""""


def _server(command: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
        click.option("--api-key-env", metavar="NAME", help="The environment variable with the key, or `none`."),
        click.option("--base-url", metavar="URL", help="The server's address.  [default: the provider's own]"),
    ):
        command = decorate(command)
    return command


@click.group(cls=Fallback, epilog=_EPILOG)
def command() -> None:
    """What the providers of a job, or one provider, serve: model ids with their windows where the server tells them.

    `show`, `pull` and `create` are for Ollama.
    """


@command.command("list")
@click.argument("job", required=False, type=click.Path(path_type=Path))
@click.option("--provider", type=click.Choice(_PROVIDERS), help="This provider, without a job.")
@_server
def list_(job: Path | None, provider: str | None, base_url: str | None, api_key_env: str | None, as_json: bool) -> None:
    """List models."""
    from batchllm.core import json
    from batchllm.core.errors import BatchLLMError, SpecError
    from batchllm.engine.served import served

    if job is None and provider is None and base_url is not None:
        provider = "openai-compatible"
    if (job is None) == (provider is None) or (job is not None and (base_url or api_key_env)):
        raise SpecError("name either a JOB, or a provider with --provider (and --base-url, --api-key-env)")
    targets = _of_job(job) if job is not None else [_of_flags(provider or "", base_url, api_key_env)]
    if not targets:
        raise SpecError(f"{job}: every model of this job is simulated; there is no server to ask")

    async def ask(transport: Transport) -> list[tuple[str, str, str | None, list[Served] | BatchLLMError]]:
        found: list[tuple[str, str, str | None, list[Served] | BatchLLMError]] = []
        for server in targets:
            kind, shown = server.provider, server.shown
            try:
                found.append((kind, shown, None, await served(server, transport)))
            except BatchLLMError as error:
                found.append((kind, shown, str(error), error))
        return found

    lists = _run(ask)
    if as_json:
        click.echo(json.text({"servers": [_as_dict(kind, shown, error, models) for kind, shown, error, models in lists]}))
    for kind, shown, error, models in lists:
        if as_json:
            break
        if isinstance(models, BatchLLMError):
            click.echo(f"error: {error}", err=True)
            continue
        click.echo(f"{kind} at {shown}: {len(models)} models", err=True)
        for one in sorted(models, key=lambda one: one.id):
            click.echo(_line(one))
    if any(error is not None for _, _, error, _ in lists):
        sys.exit(1)


@command.command("show", epilog="\b\nExample:\n  batchllm models show gemma4")
@click.argument("name")
@_server
def show_(name: str, base_url: str | None, api_key_env: str | None, as_json: bool) -> None:
    """What Ollama knows of a model: size, window, parameters, system prompt."""
    from batchllm.core import json
    from batchllm.engine.served import show

    server = _of_flags("ollama", base_url, api_key_env)
    data = _run(lambda transport: show(name, server, transport))
    if as_json:
        click.echo(json.text(dict(data)))
        return
    click.echo("\n".join(_shown(name, data)))


@command.command("pull", epilog="\b\nExample:\n  batchllm models pull gemma4\nInterrupted, the same command goes on where it was.")
@click.argument("name")
@_server
def pull_(name: str, base_url: str | None, api_key_env: str | None, as_json: bool) -> None:
    """Have Ollama download a model, with a progress bar."""
    from batchllm.engine.served import pull

    server = _of_flags("ollama", base_url, api_key_env)
    with _Steps(as_json=as_json) as steps:
        _run(lambda transport: pull(name, server, transport, steps))
    click.echo(f"{name} is here", err=True)


@command.command(
    "create",
    short_help="Have Ollama make a model of another one.",
    epilog='\b\nExample:\n  batchllm models create terse --from gemma4 --system "Answer in one word."',
)
@click.argument("name")
@click.option("--from", "base", required=True, metavar="MODEL", help="The model to make it of.")
@click.option("--system", help="Its system prompt; @FILE reads one.")
@click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of its own, e.g. num_ctx=8192; may be repeated.")
@_server
def create_(
    name: str, base: str, system: str | None, parameters: tuple[str, ...], base_url: str | None, api_key_env: str | None, as_json: bool
) -> None:
    """Have Ollama make a model of another one, with its own system prompt and parameters."""
    from batchllm.engine.served import create

    server = _of_flags("ollama", base_url, api_key_env)
    given = dict(map(_parameter, parameters))
    prompt = _prompt(system)
    with _Steps(as_json=as_json) as steps:
        _run(lambda transport: create(name, server, transport, steps, base=base, system=prompt, parameters=given))
    click.echo(f"{name} is there: models: {{my: {{provider: ollama, model: {name}}}}}", err=True)


def _of_job(job: Path) -> list[Server]:
    from batchllm.cli._job import environ_of, spec_to_run
    from batchllm.engine.access import check_access, scrubber
    from batchllm.engine.served import Server

    spec = spec_to_run(job, {}, simulate=False)
    names = [name for name, model in spec.models.items() if model.provider != "simulated"]
    environ = environ_of(spec)
    access = check_access(spec, environ, names)
    scrub = scrubber(access, spec, environ)
    targets: dict[tuple[str, str, Any], Server] = {}
    for name in names:
        model, reach = spec.models[name], access[name]
        targets.setdefault((model.provider, reach.base_url, reach.key), Server(model=model, access=reach, scrub=scrub))
    return list(targets.values())


def _of_flags(provider: str, base_url: str | None, api_key_env: str | None) -> Server:
    from pydantic import ValidationError

    from batchllm.core.errors import Problem, SpecError
    from batchllm.engine.access import Access, scrubber_of
    from batchllm.engine.keys import NoKey, read_keys
    from batchllm.engine.served import Server
    from batchllm.spec import ModelSpec
    from batchllm.spec.dotenv import environment

    if provider == "openai-compatible" and base_url is None:
        raise SpecError(Problem(file="--base-url", message="openai-compatible needs the server's address, e.g. http://localhost:8000/v1"))
    try:
        model = ModelSpec.model_validate({"provider": provider, "model": "none", "base_url": base_url, "api_key_env": api_key_env})
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)
        raise SpecError([Problem(file=f"--{'-'.join(str(detail['loc'][0]).split('_'))}", message=detail["msg"]) for detail in details]) from None
    environ = environment(Path.cwd(), os.environ)
    try:
        (key,) = read_keys(model, environ, Path.cwd(), {}).values()
    except NoKey as error:
        raise SpecError(str(error).partition(", or try")[0]) from None
    access = Access(base_url=model.api_base(environ), key=key, headers={})
    return Server(model=model, access=access, scrub=scrubber_of([(model, access)], environ))


def _run(work: Callable[[Transport], Coroutine[Any, Any, T]]) -> T:
    import asyncio

    async def main() -> T:
        from batchllm.transport.http import HttpTransport

        transport = HttpTransport()
        try:
            return await work(transport)
        finally:
            await transport.close()

    with asyncio.Runner() as runner:
        return runner.run(main())


def _line(one: Served) -> str:
    from batchllm.report.text import clean

    facts = [f"{one.context_window:,} tokens"] if one.context_window else []
    facts += [f"answers up to {one.max_output_tokens:,}"] if one.max_output_tokens else []
    facts += [f"ends {clean(one.shut_down, 20)}"] if one.shut_down else []
    facts += [clean(one.note, 60)] if one.note else []
    return f"{clean(one.id, 100):<40} {', '.join(facts)}".rstrip()


def _as_dict(provider: str, shown: str, error: str | None, models: Any) -> dict[str, Any]:
    listed = [] if error is not None else models
    return {
        "provider": provider,
        "base_url": shown,
        "error": error,
        "models": [
            {
                "id": one.id,
                "context_window": one.context_window,
                "max_output_tokens": one.max_output_tokens,
                "shut_down": one.shut_down,
                "note": one.note,
            }
            for one in listed
        ],
    }


def _shown(name: str, data: Any) -> list[str]:
    from batchllm.report.text import clean, clean_lines

    details = data.get("details") if isinstance(data.get("details"), dict) else {}
    info = data.get("model_info") if isinstance(data.get("model_info"), dict) else {}
    window = next((value for key, value in info.items() if key.endswith(".context_length") and isinstance(value, int)), None)
    lines = [name]
    lines += [
        f"  {key.replace('_', ' ')}: {clean(str(details[key]), 60)}" for key in ("family", "parameter_size", "quantization_level") if details.get(key)
    ]
    lines += [f"  window: {window:,} tokens"] if window else []
    capabilities = data.get("capabilities")
    lines += [f"  can: {', '.join(clean(str(word), 30) for word in capabilities)}"] if isinstance(capabilities, list) and capabilities else []
    for key in ("parameters", "system", "template"):
        if isinstance(data.get(key), str) and data[key].strip():
            lines += [f"  {key}:", *(f"    {line}" for line in clean_lines(data[key].strip()).splitlines()[:20])]
    return lines


def _parameter(text: str) -> tuple[str, Any]:
    from batchllm.core import json
    from batchllm.core.errors import Problem, SpecError

    name, sign, value = text.partition("=")
    if not sign or not name.strip():
        raise SpecError(Problem(file="--parameter", message=f"expected NAME=VALUE, such as num_ctx=8192, got {text!r}"))
    try:
        return name.strip(), json.loads(value)
    except json.JSONDecodeError:
        return name.strip(), value


def _prompt(text: str | None) -> str | None:
    from batchllm.core.errors import Problem, SpecError

    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(Problem(file="--system", message=f"{text[1:]}: can't be read: {error}")) from None


class _Steps:
    """Ollama's progress: a bar on a terminal, a line for each new step elsewhere, JSON lines with --json."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._live = sys.stderr.isatty() and not as_json
        self._bar: Any = None
        self._task: Any = None
        self._last = ""

    def __enter__(self) -> Self:
        if self._live:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True, highlight=False))
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, step: Step) -> None:
        from batchllm.report.text import clean

        words = clean(step.status, 40)
        if self._as_json:
            from batchllm.core import json

            click.echo(json.text({"status": step.status, "digest": step.digest, "total": step.total, "completed": step.completed}))
        elif self._bar is not None:
            self._paint(words, step)
        elif words != self._last:
            click.echo(words, err=True)
        self._last = words

    def _paint(self, words: str, step: Step) -> None:
        if words != self._last:
            if step.total is None:
                self._bar.console.print(words, markup=False)
                self._task = None
                return
            self._task = self._bar.add_task(words, total=step.total)
        if self._task is not None and step.total is not None:
            self._bar.update(self._task, total=step.total, completed=step.completed or 0)
