"""What the contract names and this version can't honour yet. Such a key is refused, never ignored; a value equal to the default is accepted everywhere.

A later version deletes lines here, and nothing else has to change for a refusal to go away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchllm.spec.findings import Finding, Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Values that are refused at the places a path names (`*` is any key or index)."""

    path: str
    when: Callable[[Any], bool]
    name: str | None = None
    """How the message calls it; default: the value if it is one of several words, else the key."""
    values: tuple[str, ...] = ()
    """The refused words, for the JSON Schema."""
    leaves: Mapping[str, Any] | None = None
    """JSON Schema of what is still accepted there, if it isn't the other words."""


def _words(path: str, *values: str) -> Refused:
    return Refused(path=path, when=lambda value: isinstance(value, str) and value in values, values=values)


def _given(path: str) -> Refused:
    """Any value but null."""
    return Refused(path=path, when=lambda value: value is not None, leaves={"type": "null"})


def _true(path: str, name: str, *also: str) -> Refused:
    return Refused(path=path, when=lambda value: value is True, name=name, leaves={"enum": [False, *also, None]})


def _parquet(path: str) -> Refused:
    return Refused(path=path, when=lambda value: isinstance(value, str) and value.lower().endswith(".parquet"), name="parquet")


REFUSED: tuple[Refused, ...] = (
    _words("models.*.provider", "anthropic", "gemini", "ollama"),
    _words("models.*.batch", "auto", "only"),
    *(_given(f"models.*.limits.{key}") for key in ("itpm", "otpm", "rpd", "tpd")),
    *(_given(f"limit_groups.*.{key}") for key in ("itpm", "otpm", "rpd", "tpd", "usd_per_day")),
    Refused(path="limit_groups.*.share", when=lambda value: value is not None and value != 1, leaves={"enum": [1, None]}),
    _words("endpoint", "completions", "embeddings", "responses"),
    *(_parquet(path) for path in ("input", "input.*", "input.path", "input.path.*", "results")),
    Refused(path="routes.*.use", when=lambda value: isinstance(value, dict), name="weighted `use`"),
    *(_given(f"output.{key}") for key in ("schema", "choices", "check", "on_invalid")),
    _words("output.on_length", "retry"),
    _given("samples"),
    _true("stream", "stream: true"),
    *(_given(f"budget.{key}") for key in ("usd_per_day", "tokens", "tokens_per_day", "tokens_per_month")),
    _words("budget.when_used_up", "wait"),
    _words("budget.reserve", "learned"),
    _words("prefer", "cheapest", "fastest"),
    *(_given(f"context.{key}") for key in ("max_tokens", "reserve")),
    _words("context.trim", "oldest", "middle"),
    _true("dedupe", "dedupe: true", "auto"),
    Refused(path="cache", when=lambda value: value is True or isinstance(value, str), leaves={"enum": [False, None]}),
    _words("prompt_cache", "5m", "1h"),
    _true("compress", "compress: true"),
)


def unsupported(data: Mapping[str, Any]) -> Iterator[Finding]:
    """What the data asks for that this version can't do."""
    for refused in REFUSED:
        for path, value in _at(data, tuple(refused.path.split(".")), ()):
            if refused.when(value):
                name = refused.name or (value if refused.values else str(path[-1]))
                quoted = name if "`" in name else f"`{name}`"
                yield Finding(path=path, message=f"{quoted} is not supported by this version yet", at="value" if refused.values else "key")


def _at(data: Any, pattern: tuple[str, ...], path: Path) -> Iterator[tuple[Path, Any]]:
    if not pattern:
        yield path, data
        return
    step, rest = pattern[0], pattern[1:]
    items: list[tuple[str | int, Any]] = []
    if isinstance(data, dict):
        items = list(data.items()) if step == "*" else [(step, data[step])] if step in data else []
    elif isinstance(data, list) and step == "*":
        items = list(enumerate(data))
    for key, item in items:
        yield from _at(item, rest, (*path, key))
