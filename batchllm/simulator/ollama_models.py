"""The models on a simulated Ollama's disk: pulled, created, copied and deleted while it runs (protocols D.2).

By default every name is there, so that a job needs no pull; only where the settings name the served models is another one a 404 until it was pulled. The trap is
the tag: `gemma4` and `gemma4:latest` are one model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

_KEEP_SECONDS = 300.0
_EPOCH = 1_780_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One model on the disk."""

    name: str
    """With its tag."""
    modified: float = _EPOCH
    """Seconds since 1970 UTC."""
    base: str = ""
    """What it was created from; empty when it was pulled."""
    system: str = ""
    template: str = "{{ .Prompt }}"
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of its layers, hexadecimal."""
        return sha256(repr((self.name, self.base, self.system, self.template, sorted(self.parameters.items(), key=str))).encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes; invented, but always the same for a name."""
        return 500_000_000 + int(sha256((self.base or self.name).encode()).hexdigest()[:8], 16)


def tagged(name: str) -> str:
    """A name with its tag."""
    return name if ":" in name.rpartition("/")[2] else name + ":latest"


class Shelf:
    """What is there, and what is in memory."""

    def __init__(self, names: Sequence[str] | None, *, shown: Sequence[str]) -> None:
        self._open = names is None
        self._there = {tagged(name): Stored(name=tagged(name)) for name in (shown if names is None else names)}
        self._gone: set[str] = set()
        self._used: dict[str, float] = {}

    def get(self, name: str) -> Stored | None:
        """The model, or None when it is not there."""
        name = tagged(name)
        found = self._there.get(name)
        return Stored(name=name) if found is None and self._open and name not in self._gone else found

    def put(self, model: Stored) -> None:
        """Pulled, created or copied."""
        self._there[model.name] = model
        self._gone.discard(model.name)

    def delete(self, name: str) -> bool:
        """Says whether it was there."""
        there = self.get(name) is not None
        self._there.pop(tagged(name), None)
        self._gone.add(tagged(name))
        self._used.pop(tagged(name), None)
        return there

    def listed(self) -> list[Stored]:
        """All that the disk shows, newest first."""
        return sorted(self._there.values(), key=lambda model: (-model.modified, model.name))

    def use(self, name: str, utc: float) -> None:
        """It answers, and so stays in memory for a while."""
        self._used[tagged(name)] = utc

    def unload(self, name: str) -> None:
        """Out of memory."""
        self._used.pop(tagged(name), None)

    def loaded(self, utc: float) -> list[tuple[Stored, float]]:
        """What is in memory, and until when."""
        kept = [(self.get(name), used + _KEEP_SECONDS) for name, used in self._used.items() if used + _KEEP_SECONDS > utc]
        return [(model, until) for model, until in kept if model is not None]
