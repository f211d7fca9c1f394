"""`batchllm tokens`: how many tokens a text has, who counted, and how good that is; and the vocabularies that exact counts need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchllm.cli._group import Fallback

if TYPE_CHECKING:
    from batchllm.tokens import Counter

_EPILOG = """\b
Examples:
  batchllm tokens "How many tokens is this?" --model gpt-6-luna
  batchllm tokens --file prompt.md --model claude-sonnet-5-5 --chat
  cat prompt.md | batchllm tokens - --json
  batchllm tokens "What is on it?" --image scan.png --tools tools.json
  batchllm tokens --job reviews.yaml "Label: fine"
  batchllm tokens fetch"""
_MODEL = "gpt-6-luna"
_USUAL = ("o200k_base", "cl100k_base")
_LONGEST_BYTES = 64 * 2**20


@click.group(cls=Fallback, epilog=_EPILOG)
def command() -> None:
    """How many input tokens a text is, by the model's own tokenizer where it is at hand, else by an estimate; it says which.

    TEXT is the text itself, or - for stdin. Several texts are counted one by one.
    """


@command.command("count")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--model", metavar="ID", help=f"Model id.  [default: {_MODEL}]")
@click.option(
    "--provider",
    type=click.Choice(["openai", "anthropic", "gemini", "ollama", "openai-compatible", "simulated"]),
    help="Whose way of counting.  [default: the model's own]",
)
@click.option("--file", "files", multiple=True, type=click.Path(path_type=Path), help="Count a file's text; may be repeated.")
@click.option("--chat", is_flag=True, help="As a chat request: with the frame around a user message.")
@click.option("--tools", type=click.Path(path_type=Path), help="JSON file with the request's tools (OpenAI's form); implies --chat.")
@click.option("--image", "images", multiple=True, type=click.Path(path_type=Path), help="A picture beside the text; implies --chat.")
@click.option("--detail", type=click.Choice(["auto", "low", "high"]), default="auto", show_default=True, help="Of the pictures.")
@click.option("--job", metavar="JOB", help="Correct the count by what this job's answers used.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def count(texts: tuple[str, ...], files: tuple[Path, ...], images: tuple[Path, ...], as_json: bool, **flags: Any) -> None:
    """Count texts."""
    from batchllm.core import json
    from batchllm.core.errors import SpecError

    given = [*((_short(text), _text(text)) for text in texts), *((str(path), _decoded(_read(path), str(path))) for path in files)]
    if not given and not images and flags["tools"] is None:
        raise SpecError("nothing to count: give a text in quotes, --file PATH, or - for stdin")
    model, provider, name = _model(flags)
    from batchllm import tokens

    counter = tokens.counter(provider, model)
    chat = bool(flags["chat"] or images or flags["tools"] is not None)
    pictures = [_picture(path, provider, model, flags["detail"]) for path in images]
    params = {"tools": _tools(flags["tools"])} if flags["tools"] is not None else {}
    ratio = _ratio(flags["job"], name) if flags["job"] is not None else None
    if chat:
        lines = [_chat(counter, [text for _, text in given], pictures, params)]
    else:
        lines = [
            {"text": label, "tokens": counter.text(text), "characters": len(text), "bytes": len(text.encode(errors="replace"))}
            for label, text in given
        ]
    for line in lines:
        line["corrected"] = round(line["tokens"] * ratio.ratio) if ratio is not None else None
    if as_json:
        found = {"model": model, "provider": provider, "counter": counter.name, "exact": counter.exact}
        found |= {"learnt_ratio": ratio.ratio if ratio is not None else None, "counts": lines, "tokens": sum(line["tokens"] for line in lines)}
        click.echo(json.text(found))
        return
    _show(lines, counter, model=model, provider=provider, ratio=ratio)


@command.command(
    "fetch",
    short_help="Download tiktoken's vocabularies into our cache.",
    epilog="""\b
Examples:
  batchllm tokens fetch
  batchllm tokens fetch o200k_harmony

Without a network: set TIKTOKEN_CACHE_DIR to a folder that has the files, or install a package that carries them (litellm, llama-index-core); both are looked at first.""",
)
@click.argument("encodings", nargs=-1)
def fetch_(encodings: tuple[str, ...]) -> None:
    """Download tiktoken's vocabularies (default: o200k_base, cl100k_base) into our cache; those that are here already are not fetched."""
    from batchllm.cli._fetch import fetch
    from batchllm.core.errors import BatchLLMError, SpecError
    from batchllm.tokens import vocabulary

    for name in encodings or _USUAL:
        try:
            sources = vocabulary.sources(name)
        except KeyError:
            raise SpecError(f"{name!r} is no encoding of one file; there are o200k_base, cl100k_base, o200k_harmony, p50k_base, r50k_base") from None
        if vocabulary.load(name) is not None:
            click.echo(f"{name}: already here", err=True)
            continue
        for url, expected_hash, file_name in sources:
            click.echo(f"{name}: fetching {url}", err=True)
            try:
                path = vocabulary.keep(fetch(url), expected_hash=expected_hash, file_name=file_name)
            except ValueError as error:
                raise BatchLLMError(f"{name}: not kept: {error}") from None
            except OSError as error:
                raise BatchLLMError(f"{vocabulary.own_cache()}: can't be written: {error}; BATCHLLM_CACHE names another folder") from None
            except BatchLLMError as error:
                raise BatchLLMError(
                    f"{error}\nTokens are estimated until then. Elsewhere fetched, the file goes to {vocabulary.own_cache() / file_name}"
                ) from None
            click.echo(f"{name}: kept in {path}", err=True)


def _model(flags: dict[str, Any]) -> tuple[str, str, str | None]:
    """(model id, provider, its name in the job)."""
    from batchllm.core.errors import Problem, SpecError
    from batchllm.cost.listing import maker

    model, provider = flags["model"], flags["provider"]
    if flags["job"] is not None:
        from batchllm.cli._job import find

        spec = find(flags["job"], store=None, name=None, simulate=False).spec
        if spec is not None:
            name = model or next(iter(spec.models))
            named = spec.models.get(name)
            if named is None:
                raise SpecError(Problem(file="--model", message=f"the job has no model called {name!r}; it has {', '.join(spec.models)}"))
            return named.model, named.provider, name
    model = model or _MODEL
    return model, provider or maker(model) or "openai-compatible", None


def _ratio(job: str, name: str | None) -> Any:
    from batchllm.cli._job import find
    from batchllm.core.errors import SpecError
    from batchllm.report.learnt import ratios

    found = find(job, store=None, name=None, simulate=False)
    if found.spec is None:
        raise SpecError(f"{job}: its spec can't be read any more") from found.problem
    with found.read() as reader:
        ratio = next((one for one in ratios(reader, found.spec) if one.name == name), None)
    if ratio is None:
        click.echo(f"{found.store} has no answers of {name!r} with their requests yet: nothing was learnt", err=True)
    return ratio


def _chat(counter: Counter, texts: list[str], pictures: list[tuple[str, int | None, int, int]], params: dict[str, Any]) -> dict[str, Any]:
    text = "\n".join(texts)
    total = counter.estimate([{"role": "user", "content": text}], params)
    unknown = [name for name, tokens, _, _ in pictures if tokens is None]
    return {
        "text": "the request",
        "tokens": total + sum(tokens or 0 for _, tokens, _, _ in pictures),
        "text_tokens": counter.text(text),
        "frame_tokens": counter.estimate([{"role": "user", "content": ""}], {}),
        "tools_tokens": total - counter.estimate([{"role": "user", "content": text}], {}),
        "images": [{"file": name, "width": width, "height": height, "tokens": tokens} for name, tokens, width, height in pictures],
        "unknown_images": unknown,
    }


def _show(lines: list[dict[str, Any]], counter: Counter, *, model: str, provider: str, ratio: Any) -> None:
    from batchllm.report.text import counted

    for line in lines:
        more = f"   ({line['text']})" if len(lines) > 1 else ""
        click.echo(f"{counted(line['tokens'], 'token')}{more}")
        if "frame_tokens" in line:
            parts = [f"text {line['text_tokens']:,}", f"frame {line['frame_tokens']:,}"]
            parts += [f"tools {line['tools_tokens']:,}"] if line["tools_tokens"] else []
            parts += [f"{image['file']} ({image['width']} x {image['height']}) {_known(image['tokens'])}" for image in line["images"]]
            click.echo(f"  {', '.join(parts)}")
        else:
            click.echo(f"  {counted(line['characters'], 'character')}, {counted(line['bytes'], 'byte')}")
        if line["corrected"] is not None:
            click.echo(f"  corrected: {line['corrected']:,} tokens")
    if ratio is not None:
        many = "recent" if ratio.answers is None else f"{ratio.answers:,}"
        click.echo(f"Learnt from {many} answers of this job: x{ratio.ratio:.3f}")
    click.echo(f"Counted for {model} ({provider}) by {_words(counter)}")


def _known(tokens: int | None) -> str:
    return "unknown for this model" if tokens is None else f"{tokens:,}"


def _words(counter: Counter) -> str:
    if counter.exact:
        return (
            "the simulator's own count."
            if counter.name == "simulator"
            else f"its own vocabulary, {counter.name}; the frame of a chat is an approximation."
        )
    if counter.name == "estimate":
        return "an estimate (some 20 % off either way; for OpenAI's models `batchllm tokens fetch` gets the vocabulary)."
    return f"{counter.name}, which is close to its vocabulary, but not documented to be it."


def _short(text: str) -> str:
    return "stdin" if text == "-" else text if len(text) <= 40 else f"{text[:39]}…"


def _text(text: str) -> str:
    if text != "-":
        return text
    return _decoded(sys.stdin.buffer.read(_LONGEST_BYTES), "stdin")


def _decoded(data: bytes, name: str) -> str:
    from batchllm.core.errors import Problem, SpecError

    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(Problem(file=name, message=f"not UTF-8 (byte {error.start})")) from None


def _read(path: Path) -> bytes:
    from batchllm.core.errors import Problem, SpecError

    try:
        return path.read_bytes()
    except OSError as error:
        raise SpecError(Problem(file=str(path), message=f"can't be read: {error.strerror or error}")) from None


def _picture(path: Path, provider: str, model: str, detail: str) -> tuple[str, int | None, int, int]:
    from batchllm.core.errors import Problem, SpecError
    from batchllm.tokens.picture import picture_tokens, size_of

    size = size_of(_read(path))
    if size is None:
        raise SpecError(Problem(file=str(path), message="is no PNG, JPEG, GIF or WebP picture"))
    return str(path), picture_tokens(provider, model, *size, detail=detail), *size


def _tools(path: Path) -> list[Any]:
    from batchllm.core import json
    from batchllm.core.errors import Problem, SpecError

    try:
        tools = json.loads(_read(path))
    except json.JSONDecodeError as error:
        raise SpecError(Problem(file=str(path), message=f"no JSON: {error}")) from None
    tools = tools.get("tools") if isinstance(tools, dict) else tools
    if not isinstance(tools, list) or not all(isinstance(tool, dict) and isinstance(tool.get("type"), str) for tool in tools):
        message = 'expected a list of tools in OpenAI\'s form: [{"type": "function", "function": {"name": ..., "parameters": ...}}]'
        raise SpecError(Problem(file=str(path), message=message))
    return tools
