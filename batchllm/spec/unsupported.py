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


def _true(path: str, name: str, *also: str) -> Refused:
    return Refused(path=path, when=lambda value: value is True, name=name, leaves={"enum": [False, *also, None]})


REFUSED: tuple[Refused, ...] = (
    _words("models.*.batch", "auto", "only"),
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
